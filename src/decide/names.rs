//! The names that a container's certificate carries: all by which its clients can reach it.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    model::{San, Sans, inspect::Inspect},
    san::{self, BadSan},
    shown::Shown,
};

/// The label by which Compose names the service of a container, which is a DNS name on its networks.
pub const COMPOSE_SERVICE: &str = "com.docker.compose.service";

/// Where names come from.
#[derive(Clone, Debug, Default)]
struct NameSources<'a> {
    container: &'a str,
    /// The label [`COMPOSE_SERVICE`].
    compose_service: Option<&'a str>,
    /// The aliases of every network, and a hostname that was set by hand.
    aliases: Vec<&'a str>,
    /// What Docker adds to the aliases of its own accord: the container's short id, and its hostname, which is the
    /// short id of a predecessor once it was recreated. They change with each recreation, so a certificate must not
    /// depend on them.
    made_up: Vec<&'a str>,
    /// Addresses that the configuration fixes: others change at each start.
    addresses: Vec<IpAddr>,
    /// Names and addresses of the host, from the config.
    host_names: Option<&'a Sans>,
    /// `dbssl.names`.
    asked: Option<&'a Sans>,
}

/// What goes into the certificate, and what cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub sans: Sans,
    /// In the order of the names, each once.
    pub left_out: Vec<LeftOut>,
}

/// A name by which the container can be reached, but not with `verify-full`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub name: String,
    pub why: BadSan,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is left out of the certificate: it {}", Shown(&self.name), self.why)
    }
}

/// The names of a container as it is now. `asked` are those of `dbssl.names`, `host_names` those of the config.
///
/// `localhost`, 127.0.0.1 and ::1 are always there: health checks and `docker exec` connect so. A name
/// with underscores is there twice, as it is and with hyphens, since Java's HTTPS check refuses
/// underscores.
pub fn certificate_names(inspect: &Inspect, asked: &Sans, host_names: &Sans) -> Names {
    let aliases = inspect.aliases();
    collect(&NameSources {
        container: inspect.name().as_str(),
        compose_service: inspect.label(COMPOSE_SERVICE),
        aliases: aliases.iter().map(String::as_str).collect(),
        made_up: [inspect.id().short()].into_iter().chain(inspect.default_hostname()).collect(),
        addresses: inspect.fixed_addresses(),
        host_names: Some(host_names),
        asked: Some(asked),
    })
}

fn collect(input: &NameSources<'_>) -> Names {
    let mut sans = Sans::from([
        San::Dns("localhost".to_owned()),
        San::Ip(Ipv4Addr::LOCALHOST.into()),
        San::Ip(Ipv6Addr::LOCALHOST.into()),
    ]);
    let mut left_out = BTreeMap::new();

    let texts =
        input.aliases.iter().copied().filter(|&alias| !alias.is_empty() && !input.made_up.contains(&alias));
    for text in [input.container].into_iter().chain(input.compose_service).chain(texts) {
        // Docker's own inspect shows names with a slash in front.
        let text = text.strip_prefix('/').unwrap_or(text);
        match san::parse(text) {
            Ok(san) => add(&mut sans, san),
            Err(why) => _ = left_out.insert(text.to_owned(), why),
        }
    }
    for address in &input.addresses {
        match san::parse(&address.to_string()) {
            Ok(san) => add(&mut sans, san),
            Err(why) => _ = left_out.insert(address.to_string(), why),
        }
    }
    for san in input.host_names.into_iter().chain(input.asked).flatten() {
        add(&mut sans, san.clone());
    }

    Names { sans, left_out: left_out.into_iter().map(|(name, why)| LeftOut { name, why }).collect() }
}

fn add(sans: &mut Sans, san: San) {
    if let San::Dns(name) = &san
        && name.contains('_')
        // `db_` has no such twin: `db-` is refused by clients.
        && let Ok(twin) = san::parse(&name.replace('_', "-"))
    {
        sans.insert(twin);
    }
    sans.insert(san);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(names: &Names) -> Vec<String> {
        names.sans.iter().map(ToString::to_string).collect()
    }

    fn dns(names: &[&str]) -> Sans {
        names.iter().map(|&name| San::Dns(name.to_owned())).collect()
    }

    #[test]
    fn every_source_gives_its_names() {
        let host_names = san_set(&["db.example.com", "203.0.113.7"]);
        let asked = san_set(&["orders.internal", "fd00::7", "*.example.com"]);
        let names = collect(&NameSources {
            container: "Orders-DB",
            compose_service: Some("db"),
            aliases: vec!["orders", "0123456789ab", "10.1.2.3", "db", "DB"],
            made_up: vec!["0123456789ab"],
            addresses: vec!["10.0.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
            host_names: Some(&host_names),
            asked: Some(&asked),
        });
        assert_eq!(
            shown(&names),
            [
                "*.example.com",
                "db",
                "db.example.com",
                "localhost",
                "orders",
                "orders-db",
                "orders.internal",
                "10.0.0.5",
                "10.1.2.3",
                "127.0.0.1",
                "203.0.113.7",
                "::1",
                "fd00::5",
                "fd00::7",
            ]
        );
        assert_eq!(names.left_out, []);
        assert!(names.sans.contains(&San::Ip("10.1.2.3".parse().unwrap())), "an address is no DNS name");
    }

    #[test]
    fn an_underscore_brings_its_twin_with_a_hyphen() {
        let host_names = dns(&["db_1.host_a"]);
        let names = collect(&NameSources {
            container: "my_db",
            compose_service: Some("db_"),
            host_names: Some(&host_names),
            ..NameSources::default()
        });
        assert_eq!(
            shown(&names),
            ["db-1.host-a", "db_", "db_1.host_a", "localhost", "my-db", "my_db", "127.0.0.1", "::1"]
        );
        assert_eq!(names.left_out, []);
    }

    #[test]
    fn what_clients_refuse_is_left_out_and_said_once() {
        let names = collect(&NameSources {
            container: "db.123",
            compose_service: Some("db-"),
            aliases: vec!["-db", "db-", "", "ok", "0.0.0.0"],
            addresses: vec![Ipv4Addr::UNSPECIFIED.into()],
            ..NameSources::default()
        });
        assert_eq!(shown(&names), ["localhost", "ok", "127.0.0.1", "::1"]);
        let left_out: Vec<_> = names.left_out.iter().map(|left| (left.name.as_str(), left.why)).collect();
        assert_eq!(
            left_out,
            [
                ("-db", BadSan::LeadingHyphen),
                ("0.0.0.0", BadSan::NoServer),
                ("db-", BadSan::TrailingHyphen),
                ("db.123", BadSan::Numeric),
            ]
        );
        assert_eq!(
            names.left_out[2].to_string(),
            r#""db-" is left out of the certificate: it has a part that ends with '-', which clients refuse"#
        );
    }

    #[test]
    fn only_the_short_id_itself_is_dropped() {
        let names = collect(&NameSources {
            container: "db",
            aliases: vec!["abcdefabcdef", "0123456789ab"],
            made_up: vec!["0123456789ab"],
            ..NameSources::default()
        });
        assert_eq!(shown(&names), ["abcdefabcdef", "db", "localhost", "127.0.0.1", "::1"]);
    }

    #[test]
    fn the_same_names_in_any_order_and_case_are_the_same_set() {
        let one = NameSources { container: "db", aliases: vec!["a", "B"], ..NameSources::default() };
        let other = NameSources { container: "/DB", aliases: vec!["b", "A", "a"], ..NameSources::default() };
        assert_eq!(collect(&one), collect(&other));
    }

    fn san_set(names: &[&str]) -> Sans {
        names.iter().map(|name| san::parse(name).unwrap()).collect()
    }
}
