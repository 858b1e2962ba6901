use serde_json::json;

use super::*;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A container `shop-db-1` of Compose's service `db`, on these networks.
fn container(networks: &Value, ports: &Value) -> Value {
    let mode = networks.as_object().and_then(|all| all.keys().next().cloned()).unwrap_or_default();
    json!({
        "Id": ID,
        "Name": "/shop-db-1",
        "Config": { "Labels": { "com.docker.compose.service": "db" } },
        "HostConfig": { "NetworkMode": mode },
        "State": { "Running": true },
        "NetworkSettings": { "Networks": networks, "Ports": ports },
    })
}

fn own() -> Value {
    json!({ "shop": { "IPAddress": "172.20.0.2", "Aliases": ["db", "orders"] } })
}

fn bridge() -> Value {
    json!({ "bridge": { "IPAddress": "172.17.0.2" } })
}

fn published(address: &str) -> Value {
    json!({ "5432/tcp": [{ "HostIp": address, "HostPort": "15432" }] })
}

fn sans(names: &[&str]) -> Sans {
    names.iter().map(|name| san::parse(name).unwrap()).collect()
}

fn ask(raw: Value, place: Place, change: impl FnOnce(&mut Question<'_>)) -> Result<Endpoint, NoWay> {
    let names =
        ["localhost", "127.0.0.1", "::1", "shop-db-1", "my_db", "my-db", "db", "orders", "db.example.com"];
    ask_named(raw, place, &sans(&names), &[San::Dns("db.example.com".to_owned())], change)
}

fn ask_named(
    raw: Value,
    place: Place,
    names: &Sans,
    public_names: &[San],
    change: impl FnOnce(&mut Question<'_>),
) -> Result<Endpoint, NoWay> {
    let inspect = Inspect::new(raw).unwrap();
    let mut question = Question {
        inspect: &inspect,
        tls_port: 5432,
        plaintext_port: 5432,
        names,
        public_names,
        takes_address: false,
        checks_name: true,
        refuses_underscores: false,
    };
    change(&mut question);
    endpoint(place, &question)
}

fn at(host: &str, port: u16) -> Endpoint {
    Endpoint::new(host, port)
}

/// Without the note.
fn bare(found: Result<Endpoint, NoWay>) -> Result<Endpoint, NoWay> {
    found.map(|found| Endpoint { note: None, ..found })
}

#[test]
fn in_a_container_its_own_name_resolves() {
    let nothing = json!({});
    assert_eq!(ask(container(&own(), &nothing), Place::Container, |_| {}), Ok(at("shop-db-1", 5432)));
    // A name that cannot be in the certificate, and one that Java cannot take.
    let mut odd = container(&own(), &nothing);
    odd["Name"] = "/shop-db-".into();
    assert_eq!(ask(odd, Place::Container, |_| {}), Ok(at("db", 5432)));
    let mut underscore = container(&own(), &nothing);
    underscore["Name"] = "/my_db".into();
    assert_eq!(ask(underscore.clone(), Place::Container, |_| {}), Ok(at("my_db", 5432)));
    assert_eq!(ask(underscore, Place::Container, |q| q.refuses_underscores = true), Ok(at("db", 5432)));
    let mut nameless = container(&json!({ "shop": {} }), &nothing);
    nameless["Name"] = "/db-".into();
    nameless["Config"]["Labels"] = json!({});
    assert_eq!(ask(nameless, Place::Container, |_| {}), Err(NoWay::NoName));
    // It is stopped, and has its name all the same.
    let mut stopped = container(&json!({ "shop": { "IPAddress": "" } }), &nothing);
    stopped["State"]["Running"] = false.into();
    assert_eq!(ask(stopped, Place::Container, |_| {}), Ok(at("shop-db-1", 5432)));
}

#[test]
fn on_the_default_bridge_only_an_address_leads_there() {
    let container = || container(&bridge(), &json!({}));
    assert_eq!(ask(container(), Place::Container, |_| {}), Err(NoWay::DefaultBridge));
    let named = sans(&["172.17.0.2", "shop-db-1"]);
    let found = ask_named(container(), Place::Container, &named, &[], |_| {});
    assert_eq!(found, Ok(at("172.17.0.2", 5432)));
    let aside = Endpoint { address: Some("172.17.0.2".parse().unwrap()), ..at("shop-db-1", 5432) };
    assert_eq!(bare(ask(container(), Place::Container, |q| q.takes_address = true)), Ok(aside));
    let unchecked = ask(container(), Place::Container, |q| q.checks_name = false);
    assert_eq!(bare(unchecked.clone()), Ok(at("172.17.0.2", 5432)));
    assert!(unchecked.unwrap().note.is_some_and(|note| note.contains("changes")));
}

#[test]
fn other_networks_have_no_names() {
    for (mode, why) in
        [("host", NoWay::HostNetwork), ("none", NoWay::NoNetwork), ("container:abc", NoWay::SharedNetwork)]
    {
        let mut raw = container(&json!({}), &json!({}));
        raw["HostConfig"]["NetworkMode"] = mode.into();
        assert_eq!(ask(raw, Place::Container, |_| {}), Err(why));
    }
}

#[test]
fn on_the_host_a_published_port_is_at_localhost() {
    for address in ["127.0.0.1", "::1", "0.0.0.0", "::", ""] {
        let raw = container(&own(), &published(address));
        assert_eq!(ask(raw, Place::Host, |_| {}), Ok(at("localhost", 15432)), "{address:?}");
    }
    let mut host = container(&json!({}), &json!({}));
    host["HostConfig"]["NetworkMode"] = "host".into();
    assert_eq!(ask(host, Place::Host, |_| {}), Ok(at("localhost", 5432)));
    // Not started yet: what was asked for.
    let mut created = container(&own(), &json!({}));
    created["State"]["Running"] = false.into();
    created["HostConfig"]["PortBindings"] = published("127.0.0.1");
    assert_eq!(ask(created, Place::Host, |_| {}), Ok(at("localhost", 15432)));
}

#[test]
fn on_the_host_the_container_has_an_address_if_nothing_is_published() {
    let raw = || container(&own(), &json!({}));
    let aside = Endpoint { address: Some("172.20.0.2".parse().unwrap()), ..at("shop-db-1", 5432) };
    assert_eq!(bare(ask(raw(), Place::Host, |q| q.takes_address = true)), Ok(aside));
    assert_eq!(bare(ask(raw(), Place::Host, |q| q.checks_name = false)), Ok(at("172.20.0.2", 5432)));
    assert_eq!(ask(raw(), Place::Host, |_| {}), Err(NoWay::AddressNotNamed { port: 5432 }));
    let mut stopped = container(&json!({ "shop": { "IPAddress": "" } }), &json!({}));
    stopped["State"]["Running"] = false.into();
    assert_eq!(ask(stopped, Place::Host, |_| {}), Err(NoWay::NoAddress(5432)));
}

#[test]
fn a_port_published_on_one_address_is_there() {
    let raw = || container(&own(), &published("192.0.2.5"));
    let aside = Endpoint { address: Some("192.0.2.5".parse().unwrap()), ..at("shop-db-1", 15432) };
    assert_eq!(ask(raw(), Place::Host, |q| q.takes_address = true), Ok(aside));
    assert_eq!(ask(raw(), Place::Host, |q| q.checks_name = false), Ok(at("192.0.2.5", 15432)));
    assert_eq!(ask(raw(), Place::Public, |_| {}), Ok(at("db.example.com", 15432)));
}

#[test]
fn from_elsewhere_it_takes_a_published_port_and_a_public_name() {
    for address in ["0.0.0.0", "::", "", "192.0.2.5"] {
        let raw = container(&own(), &published(address));
        assert_eq!(ask(raw, Place::Public, |_| {}), Ok(at("db.example.com", 15432)), "{address:?}");
    }
    let loopback = container(&own(), &published("127.0.0.1"));
    assert_eq!(ask(loopback, Place::Public, |_| {}), Err(NoWay::LoopbackOnly(5432)));
    let nothing = container(&own(), &json!({}));
    assert_eq!(ask(nothing, Place::Public, |_| {}), Err(NoWay::NotPublished(5432)));
    let unnamed = container(&own(), &published("0.0.0.0"));
    assert_eq!(ask(unnamed, Place::Public, |q| q.public_names = &[]), Err(NoWay::NoPublicName));
    // Redis serves TLS on a port of its own.
    let plaintext = container(&own(), &published("0.0.0.0"));
    let found = ask(plaintext, Place::Public, |q| q.tls_port = 6380);
    let why = NoWay::OnlyPlaintext { plaintext: 5432, tls: 6380 };
    assert_eq!(
        why.to_string(),
        "only the plaintext port 5432 is published: publish 6380, where TLS is served, instead"
    );
    assert_eq!(found, Err(why));
}

#[test]
fn public_names_come_before_public_addresses() {
    let found = public_names(
        &sans(&["203.0.113.7", "db.example.com"]),
        &sans(&["*.example.net", "10.0.0.9", "a.test"]),
    );
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["db.example.com", "*.example.net", "a.test", "203.0.113.7", "10.0.0.9"]);
    let raw = || container(&own(), &published("0.0.0.0"));
    let names: Sans = found.iter().cloned().collect();
    let found = ask_named(raw(), Place::Public, &names, &found[1..], |_| {});
    assert_eq!(found, Ok(at("a.test", 15432)), "a wildcard is no host");
}
