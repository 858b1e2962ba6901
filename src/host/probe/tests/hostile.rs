//! Servers that are out to exhaust whoever probes them: each call ends by its deadline, and takes no more than its bound.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// What a server could get rid of at the most: what is read, and what the kernel's buffers take on both sides.
const MOST: u64 = LIMIT + (16 << 20);

/// How a connection begins, before what does not end.
type Opening = fn() -> Vec<u8>;

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

fn handshake_message(kind: u8, length: u32, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &length.to_be_bytes()[1..], body].concat()
}

/// TLS 1.2, `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`, with the extended master secret.
fn server_hello() -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0, 0xc0, 0x2b, 0, 0, 4, 0, 23, 0, 0]].concat();
    record(22, &handshake_message(2, u32::try_from(body.len()).unwrap(), &body))
}

/// The beginning of a chain of 16 MiB, the most that TLS can say.
fn long_chain() -> Vec<u8> {
    let lengths = [0xff, 0xff, 0xfc, 0xff, 0xff, 0xf9];
    [server_hello(), record(22, &handshake_message(11, 0xff_ffff, &lengths))].concat()
}

fn nothing() -> Vec<u8> {
    Vec::new()
}

/// What is sent over and over: one piece of it.
fn pieces() -> Vec<(&'static str, Opening, Vec<u8>)> {
    vec![
        ("a chain of 16 MiB", long_chain, record(22, &[0x30; 16_384])),
        ("hellos without end", nothing, server_hello()),
        ("a handshake of single bytes", server_hello, record(22, &[11])),
        ("empty records", server_hello, record(22, &[])),
        ("hello requests", server_hello, record(22, &handshake_message(0, 0, &[]))),
        ("change of cipher without end", nothing, record(20, &[1])),
        ("warnings without end", nothing, record(21, &[1, 90])),
        ("data before its time", nothing, record(23, &[0; 16_384])),
        ("a MySQL greeting that lies about its length", || vec![0xff, 0xff, 0xff, 0], vec![10; 4096]),
        ("a MySQL greeting as long as is allowed", || vec![0, 0x40, 0, 0], vec![10; 4096]),
        ("MySQL's old errors", nothing, mysql_packet(0, &[&[0xff, 1, 2][..], &[0x1b; 4000]].concat())),
        ("a MongoDB answer of 2 GiB", || vec![0xff, 0xff, 0xff, 0x7f], vec![0; 4096]),
        ("a Redis answer without end", || b"$2147483647\r\n".to_vec(), vec![b'x'; 4096]),
        ("PostgreSQL's notices", nothing, message(b'N', &[b'x'; 8000])),
        ("a PostgreSQL error of 4 GiB", || b"E\xff\xff\xff\xff".to_vec(), vec![b'x'; 4096]),
    ]
}

async fn endless(opening: Opening, piece: Vec<u8>, answers_s: bool) -> (Server, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let server = server(move |mut stream| {
        let (piece, counted) = (piece.clone(), Arc::clone(&counted));
        async move {
            if answers_s {
                stream.write_all(b"S").await?;
            }
            stream.write_all(&opening()).await?;
            let many = piece.repeat((64 << 10) / piece.len() + 1);
            loop {
                stream.write_all(&many).await?;
                counted.fetch_add(many.len() as u64, Ordering::Relaxed);
            }
        }
    })
    .await;
    (server, sent)
}

#[tokio::test]
async fn whatever_has_no_end_is_left_in_time_and_at_its_bound() {
    let mut tests = Vec::new();
    for (about, opening, piece) in pieces() {
        for preamble in [PG, MY, REDIS, MONGO] {
            let piece = piece.clone();
            tests.push(tokio::spawn(async move {
                // Of PostgreSQL's TLS only what follows its answer is to be hostile.
                let is_tls = matches!(piece.first(), Some(20..=23));
                let (server, sent) = endless(opening, piece, preamble == PG && is_tls).await;
                let target = target(server.address, preamble);
                let begin = Instant::now();
                let seen = handshake(&target, IMPATIENCE).await;
                assert!(!matches!(seen, Served::Tls { .. }), "{about}, {preamble:?}: {seen:?}");
                let text = format!("{seen:?}");
                assert!(text.len() < 600 && !text.contains('\u{1b}'), "{about}, {preamble:?}: {text}");
                let ca = std::slice::from_ref(&certificates().ca);
                assert!(verifies(&target, ca, now(), IMPATIENCE).await.is_err(), "{about}, {preamble:?}");
                let _ = plaintext(&target, IMPATIENCE).await;
                let _ = admits(&target, IMPATIENCE).await;
                // Goodbyes, and a machine with other things to do.
                let limit = (IMPATIENCE + GOODBYE) * 4 + Duration::from_secs(3);
                assert!(begin.elapsed() < limit, "{about}, {preamble:?} took {:?}", begin.elapsed());
                // Four connections.
                let sent = sent.load(Ordering::Relaxed);
                assert!(sent < MOST * 4, "{about}, {preamble:?}: {sent} bytes were taken");
            }));
        }
    }
    for test in tests {
        test.await.unwrap();
    }
}

/// Behind a perfect handshake: answers and tickets without end.
#[tokio::test]
async fn behind_a_handshake_nothing_is_taken_without_end_either() {
    let with_tickets = |tickets: usize| {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates().chain(), certificates().key.clone_key())
            .unwrap();
        config.send_tls13_tickets = tickets;
        TlsAcceptor::from(Arc::new(config))
    };
    for (tickets, preamble) in [(0, REDIS), (0, MONGO), (20_000, REDIS), (20_000, MONGO)] {
        let acceptor = with_tickets(tickets);
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sent);
        let server = server(move |stream| {
            let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
            async move {
                let mut stream = acceptor.accept(stream).await?;
                let much = vec![b'x'; 64 << 10];
                loop {
                    stream.write_all(&much).await?;
                    counted.fetch_add(much.len() as u64, Ordering::Relaxed);
                }
            }
        })
        .await;
        let begin = Instant::now();
        let seen = handshake(&target(server.address, preamble), Duration::from_secs(3)).await;
        assert!(!matches!(seen, Served::Tls { ready: true, .. }), "{seen:?}");
        assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
        assert!(sent.load(Ordering::Relaxed) < MOST);
    }
}

/// A byte, and then another: the deadline is of the call and not of a byte.
#[tokio::test]
async fn a_byte_at_a_time_is_too_slow() {
    let mut tests = Vec::new();
    for (about, opening, piece) in pieces() {
        tests.push(tokio::spawn(async move {
            let server = server(move |mut stream| {
                let all = [opening(), piece.clone()].concat();
                async move {
                    for byte in all.iter().cycle() {
                        stream.write_all(&[*byte]).await?;
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    Ok(())
                }
            })
            .await;
            for preamble in [PG, MY, REDIS, MONGO] {
                let begin = Instant::now();
                let seen = handshake(&target(server.address, preamble), IMPATIENCE).await;
                assert!(!matches!(seen, Served::Tls { .. }), "{about}, {preamble:?}: {seen:?}");
                let limit = IMPATIENCE + GOODBYE + Duration::from_secs(3);
                assert!(begin.elapsed() < limit, "{about}, {preamble:?} took {:?}", begin.elapsed());
            }
        }));
    }
    for test in tests {
        test.await.unwrap();
    }
}
