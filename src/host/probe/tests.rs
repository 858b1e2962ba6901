//! Against fake servers in this process: some behave, most do not. TLS is real, with certificates by the `openssl`
//! program.

mod hostile;

use std::{net::Ipv4Addr, path::Path, process::Command, sync::OnceLock};

use rustls::{ServerConfig, version};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Long enough for a busy machine; a test that waits for it all is a test of hostile servers.
const PATIENCE: Duration = Duration::from_secs(10);
const IMPATIENCE: Duration = Duration::from_millis(400);

/// A server for as long as the test runs.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
    connections: mpsc::UnboundedReceiver<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Waits for what became of each connection: a server that has panicked fails the test.
    async fn done(mut self) {
        let mut count = 0;
        while let Ok(connection) = self.connections.try_recv() {
            let _ = connection.await.expect("the server's own checks");
            count += 1;
        }
        assert!(count > 0, "nobody has come");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves each connection by `serve`, whose errors are of no interest.
async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Server
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, connections) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = sender.send(tokio::spawn(serve(stream)));
        }
    });
    Server { address, task, connections }
}

/// A port on which nothing listens.
async fn closed_port() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

fn target(address: SocketAddr, preamble: Preamble) -> Target {
    Target {
        addresses: vec![address],
        published: Vec::new(),
        preamble,
        name: Some(San::Dns("db".to_owned())),
        identity: None,
    }
}

const PG: Preamble = Preamble::PostgresSslRequest;
const MY: Preamble = Preamble::MysqlGreeting;
const REDIS: Preamble = Preamble::Direct(PlainHello::RedisPing);
const MONGO: Preamble = Preamble::Direct(PlainHello::MongodbHello);

/// Two CAs, and leaves by the first one.
struct Certificates {
    ca: CertificateDer<'static>,
    other_ca: CertificateDer<'static>,
    leaf: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    other_key: PrivateKeyDer<'static>,
}

impl Certificates {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.leaf.clone(), self.ca.clone()]
    }
}

fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let done = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output();
            let done = done.expect("openssl is needed for this test");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let ca = "-addext keyUsage=critical,keyCertSign,cRLSign";
        openssl(&format!("req -x509 {new} -keyout ca.key -out ca.crt -days 30 -subj /CN=one {ca}"));
        openssl(&format!("req -x509 {new} -keyout other.key -out other.crt -days 30 -subj /CN=two {ca}"));
        openssl(&format!("req {new} -keyout leaf.key -out leaf.csr -subj /CN=db"));
        std::fs::write(
            folder.path().join("leaf.ext"),
            "subjectAltName=DNS:db,DNS:my_db,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n",
        )
        .unwrap();
        openssl("x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 20 -extfile leaf.ext -out leaf.crt");
        let certificate =
            |name: &str| CertificateDer::from_pem_file(folder.path().join(name)).expect("a certificate");
        let key = |name: &str| PrivateKeyDer::from_pem_file(Path::join(folder.path(), name)).expect("a key");
        Certificates {
            ca: certificate("ca.crt"),
            other_ca: certificate("other.crt"),
            leaf: certificate("leaf.crt"),
            key: key("leaf.key"),
            other_key: key("other.key"),
        }
    })
}

/// The time within the certificates' life: the day they were made is not known to a test.
fn now() -> OffsetDateTime {
    let (_, leaf) = x509_parser::parse_x509_certificate(&certificates().leaf).unwrap();
    leaf.validity().not_before.to_datetime() + time::Duration::days(1)
}

fn acceptor(versions: &[&'static rustls::SupportedProtocolVersion]) -> TlsAcceptor {
    let certificates = certificates();
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates.chain(), certificates.key.clone_key())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn read_ssl_request(stream: &mut TcpStream) -> io::Result<()> {
    let mut request = [0; 8];
    stream.read_exact(&mut request).await?;
    assert_eq!(request, [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
    Ok(())
}

async fn read_startup(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let length = stream.read_u32().await?;
    let mut packet = vec![0; length as usize - 4];
    stream.read_exact(&mut packet).await?;
    assert!(packet.starts_with(b"\0\x03\0\0") && packet.ends_with(b"\0\0"));
    Ok(())
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
}

fn error(sqlstate: &str, text: &str, routine: &str) -> Vec<u8> {
    message(b'E', format!("SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0Fx.c\0R{routine}\0\0").as_bytes())
}

/// What PostgreSQL answers to a startup packet.
const SCRAM: &[u8] = b"\0\0\0\x0aSCRAM-SHA-256\0\0";

async fn postgres(answer: Vec<u8>, acceptor: Option<TlsAcceptor>) -> Server {
    server(move |mut stream| {
        let (answer, acceptor) = (answer.clone(), acceptor.clone());
        async move {
            let Some(acceptor) = acceptor else {
                read_startup(&mut stream).await?;
                stream.write_all(&answer).await?;
                assert_eq!(stream.read(&mut [0; 64]).await?, 0, "no goodbye that would be logged");
                return Ok(());
            };
            read_ssl_request(&mut stream).await?;
            stream.write_all(b"S").await?;
            let mut stream = acceptor.accept(stream).await?;
            read_startup(&mut stream).await?;
            stream.write_all(&answer).await?;
            stream.flush().await?;
            // An end without close_notify would be an error here.
            assert_eq!(stream.read(&mut [0; 64]).await.expect("a clean end"), 0);
            Ok(())
        }
    })
    .await
}

#[tokio::test]
async fn the_chain_is_read_as_served_over_both_versions_of_tls() {
    for versions in [&[&version::TLS12], &[&version::TLS13]] {
        let server = postgres(message(b'R', SCRAM), Some(acceptor(versions))).await;
        let seen = handshake(&target(server.address, PG), PATIENCE).await;
        assert_eq!(seen, Served::Tls { chain: certificates().chain(), ready: true });
        server.done().await;
    }
}

#[tokio::test]
async fn ready_is_who_asks_for_authentication_or_has_another_complaint_than_starting_up() {
    for (answer, expected) in [
        (message(b'R', SCRAM), true),
        ([message(b'v', b"\0\0\0\0\0\0\0\0"), message(b'R', SCRAM)].concat(), true),
        (error("28000", "no pg_hba.conf entry", "ClientAuthentication"), true),
        (error("3D000", "no such database", "InitPostgres"), true),
        (error("57P03", "the database system is starting up", "ProcessStartupPacket"), false),
        (error("57P01", "shutting down", "x"), false),
        (b"".to_vec(), false),
        (b"R".to_vec(), false),
        (b"R\xff\xff\xff\xff".to_vec(), false),
        (b"R\0\0\0\x03".to_vec(), false),
        (message(b'N', b"notice\0").repeat(20), false),
        (b"\x15\x03\x03".to_vec(), false),
    ] {
        let shown = answer.escape_ascii().to_string();
        let server = server(move |mut stream| {
            let answer = answer.clone();
            async move {
                read_ssl_request(&mut stream).await?;
                stream.write_all(b"S").await?;
                let mut stream = acceptor(rustls::ALL_VERSIONS).accept(stream).await?;
                read_startup(&mut stream).await?;
                stream.write_all(&answer).await?;
                stream.shutdown().await
            }
        })
        .await;
        match handshake(&target(server.address, PG), PATIENCE).await {
            Served::Tls { chain, ready } => {
                assert_eq!(chain, certificates().chain());
                assert_eq!(ready, expected, "{shown}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_after_the_handshake_still_shows_its_chain() {
    let server = server(|mut stream| async move {
        read_ssl_request(&mut stream).await?;
        stream.write_all(b"S").await?;
        let _stream = acceptor(rustls::ALL_VERSIONS).accept(stream).await?;
        std::future::pending().await
    })
    .await;
    let seen = handshake(&target(server.address, PG), Duration::from_secs(2)).await;
    assert_eq!(seen, Served::Tls { chain: certificates().chain(), ready: false });
}

#[tokio::test]
async fn a_server_without_tls_says_so() {
    let server = server(|mut stream| async move {
        read_ssl_request(&mut stream).await?;
        stream.write_all(b"N").await
    })
    .await;
    let target = target(server.address, PG);
    assert_eq!(handshake(&target, PATIENCE).await, Served::Plaintext);
    let proved = verifies(&target, std::slice::from_ref(&certificates().ca), now(), PATIENCE).await;
    assert_eq!(proved, Err(Unproved::Plaintext));
}

#[tokio::test]
async fn a_server_without_the_leafs_key_is_found_out() {
    /// Presents a certificate with somebody else's key.
    #[derive(Debug)]
    struct Impostor(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Impostor {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let key = provider().key_provider.load_private_key(certificates().other_key.clone_key()).unwrap();
    let certified = rustls::sign::CertifiedKey::new(certificates().chain(), key);
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Impostor(Arc::new(certified))));
    let server = postgres(message(b'R', SCRAM), Some(TlsAcceptor::from(Arc::new(config)))).await;
    let target = target(server.address, PG);
    assert!(matches!(handshake(&target, PATIENCE).await, Served::Failed(_)));
    let proved = verifies(&target, std::slice::from_ref(&certificates().ca), now(), PATIENCE).await;
    assert!(matches!(proved, Err(Unproved::Rejected(_))), "{proved:?}");
}

#[tokio::test]
async fn a_chain_verifies_with_the_right_root_name_and_time_only() {
    let certificates = certificates();
    let server = server(|mut stream| async move {
        read_ssl_request(&mut stream).await?;
        stream.write_all(b"S").await?;
        let mut stream = acceptor(rustls::ALL_VERSIONS).accept(stream).await?;
        assert_eq!(stream.read(&mut [0; 64]).await.expect("a clean end"), 0);
        stream.shutdown().await
    })
    .await;
    let ask = async |name: Option<&str>, roots: &[&CertificateDer<'static>], now: OffsetDateTime| {
        let name = name.map(|name| match name.parse() {
            Ok(address) => San::Ip(address),
            Err(_) => San::Dns(name.to_owned()),
        });
        let target = Target { name, ..target(server.address, PG) };
        let roots: Vec<_> = roots.iter().map(|root| (*root).clone()).collect();
        verifies(&target, &roots, now, PATIENCE).await
    };
    let (ca, other) = (&certificates.ca, &certificates.other_ca);
    for name in [Some("db"), Some("my_db"), Some("127.0.0.1"), None] {
        assert_eq!(ask(name, &[ca], now()).await, Ok(certificates.chain()), "{name:?}");
    }
    assert_eq!(ask(Some("db"), &[other, ca], now()).await, Ok(certificates.chain()));
    for (name, roots, now) in [
        (Some("other"), &[ca][..], now()),
        (Some("127.0.0.2"), &[ca], now()),
        (Some("db"), &[other], now()),
        (None, &[other], now()),
        (Some("db"), &[ca], now() + time::Duration::days(40)),
        (None, &[ca], now() + time::Duration::days(40)),
        (Some("db"), &[ca], now() - time::Duration::days(3)),
        (Some("db"), &[ca], OffsetDateTime::UNIX_EPOCH - time::Duration::days(3)),
    ] {
        let result = ask(name, roots, now).await;
        assert!(matches!(result, Err(Unproved::Rejected(_))), "{name:?} {now}: {result:?}");
    }
    assert!(matches!(ask(Some("db"), &[], now()).await, Err(Unproved::BadRoot(_))));
    let nonsense = CertificateDer::from(b"nonsense".to_vec());
    assert!(matches!(ask(Some("db"), &[&nonsense], now()).await, Err(Unproved::BadRoot(_))));
    assert!(matches!(ask(Some("a b"), &[ca], now()).await, Err(Unproved::BadName(_))));
    server.done().await;
}

#[tokio::test]
async fn postgresql_refuses_plaintext_or_does_not() {
    let refused = error(
        "28000",
        "pg_hba.conf rejects connection for host \"x\", no encryption",
        "ClientAuthentication",
    );
    let translated = error("28000", "pg_hba.conf lehnt ab, keine Verschlüsselung", "ClientAuthentication");
    for (answer, expected) in [
        (message(b'R', SCRAM), "Accepted"),
        (refused, "Refused"),
        (translated, "Refused"),
        (error("28000", "pg_hba.conf rejects connection, SSL off", ""), "Refused"),
        (error("28000", "role \"postgres\" does not exist", "InitializeSessionUserId"), "Accepted"),
        (error("3D000", "database \"postgres\" does not exist", "InitPostgres"), "Accepted"),
        (error("57P03", "the database system is starting up", "x"), "NotReady"),
        (error("53300", "sorry, too many clients already", "x"), "NotReady"),
        (error("28000", "something else", "x"), "Unclear"),
        (error("XX000", "could not …", "x"), "Unclear"),
        (message(b'E', b""), "Unclear"),
        (message(b'E', b"\xff\xff\0C\0M"), "Unclear"),
        (message(b'Z', b"I"), "Unclear"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "Unclear"),
    ] {
        let shown = answer.escape_ascii().to_string();
        let server = postgres(answer, None).await;
        let plain = plaintext(&target(server.address, PG), PATIENCE).await;
        assert!(format!("{plain:?}").starts_with(expected), "{shown}: {plain:?}");
        server.done().await;
    }
}

#[tokio::test]
async fn a_session_without_a_password_is_ended_as_one() {
    let server = server(|mut stream| async move {
        read_startup(&mut stream).await?;
        stream.write_all(&message(b'R', &[0; 4])).await?;
        let mut goodbye = Vec::new();
        stream.read_to_end(&mut goodbye).await?;
        assert_eq!(goodbye, b"X\0\0\0\x04");
        Ok(())
    })
    .await;
    assert_eq!(plaintext(&target(server.address, PG), PATIENCE).await, Plain::Accepted);
    server.done().await;
}

fn mysql_packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [low, middle, high, _] = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&[low, middle, high, sequence], payload].concat()
}

fn mysql_greeting(capabilities: u32) -> Vec<u8> {
    let [low, high, lower, upper] = capabilities.to_le_bytes();
    let head = [b"\x0a9.7.0\0\x01\0\0\0saltsalt\0", &[low, high, 45, 2, 0, lower, upper][..]].concat();
    mysql_packet(0, &[&head, &b"\x15\0\0\0\0\0\0\0\0\0\0saltsaltsalt\0caching_sha2_password\0"[..]].concat())
}

async fn read_mysql(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut payload = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok((head[3], payload))
}

#[tokio::test]
async fn mysql_is_asked_for_tls_and_left_only_after_it_has_refused_a_login() {
    let server = server(|mut stream| async move {
        stream.write_all(&mysql_greeting(0x800 | 0x200)).await?;
        let (sequence, request) = read_mysql(&mut stream).await?;
        assert_eq!((sequence, request.len()), (1, 32));
        assert_eq!(u32::from_le_bytes(request[..4].try_into().unwrap()) & 0x800, 0x800);
        let mut stream = acceptor(rustls::ALL_VERSIONS).accept(stream).await?;
        let (sequence, login) = read_mysql(&mut stream).await?;
        assert_eq!(sequence, 2);
        assert_eq!(login[..32], request[..]);
        stream.write_all(&mysql_packet(3, b"\xfecaching_sha2_password\0salt\0")).await?;
        assert_eq!(read_mysql(&mut stream).await?, (4, vec![]));
        stream.write_all(&mysql_packet(5, b"\xff\x15\x04#28000Access denied")).await?;
        stream.flush().await?;
        assert_eq!(stream.read(&mut [0; 64]).await.expect("a clean end"), 0);
        Ok(())
    })
    .await;
    let target = target(server.address, MY);
    let seen = handshake(&target, PATIENCE).await;
    assert_eq!(seen, Served::Tls { chain: certificates().chain(), ready: true });
    let proved = verifies(&target, std::slice::from_ref(&certificates().ca), now(), PATIENCE).await;
    assert_eq!(proved, Ok(certificates().chain()));
    server.done().await;
}

#[tokio::test]
async fn mysql_greetings_are_believed_only_as_far_as_they_go() {
    for (greeting, expected) in [
        (mysql_greeting(0x200), "Plaintext"),
        (mysql_packet(0, b"\xff\x10\x04Too many connections"), "NotReady(\"error 1040: Too many connections"),
        (mysql_packet(0, b"\xff\x6a\x04Host is not allowed"), "Failed(\"error 1130"),
        (mysql_packet(0, b"\xff"), "NotReady(\"error 0"),
        (mysql_packet(0, b""), "Failed"),
        (mysql_packet(0, b"\x0a9.7.0\0\x01\0\0"), "Failed"),
        (mysql_packet(0, b"\x0awithout an end"), "Failed"),
        (mysql_packet(0, b"\x09old"), "Failed"),
        (b"\xff\xff\xff\0".to_vec(), "Failed"),
        (b"\x0a\0".to_vec(), "NotReady(\"the server ended the connection"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "Failed"),
    ] {
        let shown = greeting.escape_ascii().to_string();
        let server = server(move |mut stream| {
            let greeting = greeting.clone();
            async move {
                stream.write_all(&greeting).await?;
                stream.shutdown().await?;
                while stream.read(&mut [0; 64]).await? > 0 {}
                Ok(())
            }
        })
        .await;
        let seen = handshake(&target(server.address, MY), PATIENCE).await;
        assert!(format!("{seen:?}").starts_with(expected), "{shown}: {seen:?}");
    }
}

#[tokio::test]
async fn mysql_refuses_plaintext_or_does_not() {
    for (answer, expected) in [
        (&b"\xff\x57\x0c#HY000Connections using insecure transport are prohibited"[..], Plain::Refused),
        (
            b"\xff\x15\x04#28000Access denied",
            Plain::Unclear("the login is refused before it matters whether TLS is used".to_owned()),
        ),
        (b"\0\0\0\x02\0\0\0", Plain::Accepted),
        (b"\xff\x1d\x04Server shutdown", Plain::NotReady("error 1053: Server shutdown".to_owned())),
        (b"\x42?", Plain::Unclear("MySQL does not answer \"B?\"".to_owned())),
    ] {
        let server = server(move |mut stream| async move {
            stream.write_all(&mysql_greeting(0x800)).await?;
            let (sequence, login) = read_mysql(&mut stream).await?;
            assert_eq!(sequence, 1);
            assert_eq!(u32::from_le_bytes(login[..4].try_into().unwrap()) & 0x800, 0);
            stream.write_all(&mysql_packet(2, answer)).await?;
            while stream.read(&mut [0; 64]).await? > 0 {}
            Ok(())
        })
        .await;
        assert_eq!(plaintext(&target(server.address, MY), PATIENCE).await, expected);
        server.done().await;
    }
}

#[tokio::test]
async fn the_others_speak_tls_at_once_and_refuse_plaintext_by_leaving() {
    let mongo = [&60_u32.to_le_bytes()[..], &[0; 8], &2013_u32.to_le_bytes(), &[0; 44]].concat();
    for (preamble, answer, is_ready) in [
        (REDIS, b"+PONG\r\n".to_vec(), true),
        (REDIS, b"-NOAUTH Authentication required.\r\n".to_vec(), true),
        (REDIS, b"-LOADING Redis is loading the dataset in memory\r\n".to_vec(), false),
        (MONGO, mongo, true),
    ] {
        let server = server(move |stream| {
            let answer = answer.clone();
            async move {
                let mut stream = acceptor(rustls::ALL_VERSIONS).accept(stream).await?;
                let _ = stream.read(&mut [0; 64]).await?;
                stream.write_all(&answer).await?;
                while stream.read(&mut [0; 64]).await? > 0 {}
                stream.shutdown().await
            }
        })
        .await;
        let target = target(server.address, preamble);
        let seen = handshake(&target, PATIENCE).await;
        assert_eq!(seen, Served::Tls { chain: certificates().chain(), ready: is_ready });
        assert_eq!(plaintext(&target, PATIENCE).await, Plain::Refused);
    }
    // As one does that wants a certificate of its clients.
    let strict = server(|stream| async move {
        let stream = acceptor(rustls::ALL_VERSIONS).accept(stream).await?;
        drop(stream);
        Ok(())
    })
    .await;
    let seen = handshake(&target(strict.address, REDIS), PATIENCE).await;
    assert!(matches!(&seen, Served::Failed(why) if why.contains("a certificate of its clients")), "{seen:?}");
    let closed = closed_port().await;
    assert_eq!(plaintext(&target(closed, REDIS), PATIENCE).await, Plain::Refused);
}

/// A server that demands a client's certificate turns away whoever has none, in whichever version and however late.
#[tokio::test]
async fn whoever_has_a_certificate_gets_in_where_one_is_demanded() {
    use crate::{model::KeyType, pki};

    let ca = || pki::Ca::generate("h", KeyType::P256, time::Duration::days(30), now()).unwrap();
    let identity = |ca: &pki::Ca| {
        let request = pki::ClientRequest {
            user: "probe",
            organization: None,
            key_type: KeyType::P256,
            lifetime: time::Duration::days(1),
        };
        // rustls' server looks at the clock.
        let leaf = ca.issue_client(&request, crate::host::clock::now()).unwrap();
        Identity::new([leaf.certificate.der()], &leaf.key).unwrap()
    };
    let (ours, other) = (ca(), ca());
    let (right, strange) = (identity(&ours), identity(&other));
    assert_eq!(format!("{right:?}"), "Identity");
    for versions in [&[&version::TLS12], &[&version::TLS13]] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(ours.certificate().der().to_vec())).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates().chain(), certificates().key.clone_key())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = server(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                // Whoever is turned away here is no trouble of the server's.
                let Ok(mut stream) = acceptor.accept(stream).await else { return Ok(()) };
                let _ = stream.read(&mut [0; 64]).await?;
                stream.write_all(b"+PONG\r\n").await?;
                while stream.read(&mut [0; 64]).await? > 0 {}
                stream.shutdown().await
            }
        })
        .await;
        let target = |identity: Option<&Identity>| Target {
            identity: identity.cloned(),
            ..target(server.address, REDIS)
        };
        for (identity, plain) in
            [(None, Plain::Refused), (Some(&strange), Plain::Refused), (Some(&right), Plain::Accepted)]
        {
            let target = target(identity);
            assert_eq!(admits(&target, PATIENCE).await, plain, "{versions:?}");
            let seen = handshake(&target, PATIENCE).await;
            let is_served = matches!(seen, Served::Tls { ready: true, .. });
            assert_eq!(is_served, plain == Plain::Accepted, "{versions:?}: {seen:?}");
        }
    }
}

/// Docker's proxy takes in whoever comes to a published port, and hangs up when nothing listens behind it.
#[tokio::test]
async fn a_published_address_says_nothing_where_nothing_listens_on_the_own_one() {
    let proxy = server(|stream| async move {
        drop(stream);
        Ok(())
    })
    .await;
    let behind = Target { published: vec![proxy.address], ..target(closed_port().await, MONGO) };
    let seen = handshake(&behind, PATIENCE).await;
    assert!(matches!(&seen, Served::Unreachable(why) if why.contains("refused")), "{seen:?}");
}

#[tokio::test]
async fn the_others_accept_plaintext_by_answering_in_it() {
    let mongo = [&60_u32.to_le_bytes()[..], &[0; 8], &2013_u32.to_le_bytes(), &[0; 44]].concat();
    for (preamble, answer, expected) in [
        (REDIS, b"+PONG\r\n".to_vec(), "Accepted"),
        (REDIS, b"-NOAUTH Authentication required.\r\n".to_vec(), "Accepted"),
        (REDIS, b"HTTP/1.1 400 Bad Request\r\n".to_vec(), "Unclear"),
        (MONGO, mongo, "Accepted"),
        (MONGO, vec![b'x'; 16], "Unclear"),
    ] {
        let server = server(move |mut stream| {
            let answer = answer.clone();
            async move {
                let mut question = [0; 64];
                let length = stream.read(&mut question).await?;
                if preamble == MONGO && question[0] != 22 {
                    assert_eq!(question[..4], u32::try_from(length).unwrap().to_le_bytes());
                    // The document's own length, and its end.
                    assert_eq!(question[21..25], u32::try_from(length - 21).unwrap().to_le_bytes());
                    assert_eq!(question[length - 1], 0);
                }
                stream.write_all(&answer).await
            }
        })
        .await;
        let target = target(server.address, preamble);
        let plain = plaintext(&target, PATIENCE).await;
        assert!(format!("{plain:?}").starts_with(expected), "{plain:?}");
        let seen = handshake(&target, PATIENCE).await;
        assert!(matches!(seen, Served::Failed(_)), "{seen:?}");
        server.done().await;
    }
}

#[tokio::test]
async fn nothing_that_a_server_does_outlasts_the_deadline() {
    #[derive(Clone, Copy, Debug)]
    enum Hostile {
        Silent,
        Closes,
        Resets,
        Endless(u8),
        Drips(u8),
        EndlessAfterS(u8),
        DripsAfterS,
    }
    use Hostile::*;
    async fn endless(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
        let bytes = vec![byte; 64 << 10];
        loop {
            stream.write_all(&bytes).await?;
        }
    }
    async fn drips(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
        loop {
            stream.write_all(&[byte]).await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let mut tests = Vec::new();
    for hostile in [
        Silent,
        Closes,
        Resets,
        Endless(0),
        Endless(b'E'),
        Endless(b'N'),
        Endless(b'R'),
        Endless(22),
        Drips(b'E'),
        Drips(0),
        Drips(22),
        EndlessAfterS(22),
        EndlessAfterS(0),
        EndlessAfterS(3),
        DripsAfterS,
    ] {
        for preamble in [PG, MY, REDIS, MONGO] {
            tests.push(tokio::spawn(async move {
                let server = server(move |mut stream| async move {
                    match hostile {
                        Silent => std::future::pending().await,
                        Closes => Ok(()),
                        Resets => stream.set_zero_linger(),
                        Endless(byte) => endless(&mut stream, byte).await,
                        Drips(byte) => drips(&mut stream, byte).await,
                        EndlessAfterS(byte) => {
                            stream.write_all(b"S").await?;
                            endless(&mut stream, byte).await
                        }
                        DripsAfterS => {
                            stream.write_all(b"S").await?;
                            drips(&mut stream, 22).await
                        }
                    }
                })
                .await;
                let target = target(server.address, preamble);
                let begin = Instant::now();
                let seen = handshake(&target, IMPATIENCE).await;
                assert!(!matches!(seen, Served::Tls { .. }), "{hostile:?} {preamble:?}: {seen:?}");
                let plain = plaintext(&target, IMPATIENCE).await;
                assert!(
                    plain != Plain::Refused
                        || matches!((hostile, preamble), (Closes | Resets, REDIS | MONGO)),
                    "{hostile:?} {preamble:?}: {plain:?}"
                );
                let proved =
                    verifies(&target, std::slice::from_ref(&certificates().ca), now(), IMPATIENCE).await;
                assert!(proved.is_err(), "{hostile:?} {preamble:?}");
                // Goodbyes, and a machine with other things to do.
                let limit = (IMPATIENCE + GOODBYE) * 3 + Duration::from_secs(3);
                assert!(begin.elapsed() < limit, "{hostile:?} {preamble:?} took {:?}", begin.elapsed());
            }));
        }
    }
    for test in tests {
        test.await.unwrap();
    }
}

#[tokio::test]
async fn a_session_that_never_stops_sending_is_left() {
    let server = server(|mut stream| async move {
        read_ssl_request(&mut stream).await?;
        stream.write_all(b"S").await?;
        let mut stream = acceptor(rustls::ALL_VERSIONS).accept(stream).await?;
        let notices = message(b'N', &[b'x'; 8000]).repeat(64);
        loop {
            stream.write_all(&notices).await?;
        }
    })
    .await;
    let begin = Instant::now();
    let seen = handshake(&target(server.address, PG), PATIENCE).await;
    assert_eq!(seen, Served::Tls { chain: certificates().chain(), ready: false });
    assert!(begin.elapsed() < PATIENCE);
}

#[tokio::test]
async fn addresses_are_tried_in_their_order_until_one_answers() {
    let good = postgres(message(b'R', SCRAM), Some(acceptor(rustls::ALL_VERSIONS))).await;
    let silent = server(|stream| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let mut target = target(good.address, PG);
    target.addresses = vec![closed_port().await, silent.address, good.address];
    let seen = handshake(&target, Duration::from_secs(6)).await;
    assert_eq!(seen, Served::Tls { chain: certificates().chain(), ready: true });
    good.done().await;
    target.addresses = vec![silent.address, closed_port().await];
    assert!(matches!(handshake(&target, IMPATIENCE).await, Served::NotReady(_)));
    target.addresses = vec![closed_port().await];
    assert!(matches!(handshake(&target, PATIENCE).await, Served::Unreachable(_)));
    assert!(matches!(plaintext(&target, PATIENCE).await, Plain::Unreachable(_)));
    target.addresses.clear();
    assert!(matches!(handshake(&target, PATIENCE).await, Served::Unreachable(_)));
}

#[tokio::test]
async fn a_connection_ends_after_so_many_bytes() {
    let server = server(|mut stream| async move {
        loop {
            stream.write_all(&[b'x'; 4096]).await?;
        }
    })
    .await;
    let mut stream = connect(server.address, Instant::now() + PATIENCE).await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end").unwrap();
    assert_eq!(u64::try_from(bytes.len()), Ok(LIMIT));
}

/// The loop runs them as tasks.
#[test]
fn probes_can_move_between_threads() {
    fn sendable<T: Send>(_: &T) {}
    let target = target(SocketAddr::from(([127, 0, 0, 1], 1)), PG);
    sendable(&handshake(&target, PATIENCE));
    sendable(&plaintext(&target, PATIENCE));
    sendable(&verifies(&target, &[], OffsetDateTime::UNIX_EPOCH, PATIENCE));
}
