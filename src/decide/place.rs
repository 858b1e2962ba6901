//! Where a client has to connect to, so that the certificate is right for it: from an application's container, from the
//! server itself, or from elsewhere.
//!
//! Guarantee: the host of an [`Endpoint`] is one of the certificate's names, or the client was said not to check it.
//! Assumption: the names in `host-names` and `dbssl.names` lead to this server.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde_json::Value;

use super::names::COMPOSE_SERVICE;
use crate::{
    model::{San, Sans, UnknownWord, inspect::Inspect},
    san,
};

/// Where the client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In a container on a network of the database's.
    #[default]
    Container,
    /// On the server, outside of any container.
    Host,
    /// On another machine.
    Public,
}

impl Place {
    pub const ALL: [Self; 3] = [Self::Container, Self::Host, Self::Public];

    /// The word of `--from`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Host => "host",
            Self::Public => "public",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Place {
    type Err = UnknownWord;

    fn from_str(found: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|place| place.word() == found)
            .ok_or_else(|| UnknownWord::new(found, &Self::ALL.map(Self::word)))
    }
}

/// The database, and what its client can do.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub inspect: &'a Inspect,
    /// The ports in the container.
    pub tls_port: u16,
    pub plaintext_port: u16,
    /// What the certificate carries.
    pub names: &'a Sans,
    /// Of these, the ones by which the server is known elsewhere, the best first.
    pub public_names: &'a [San],
    /// The client can connect to one address and check for another name.
    pub takes_address: bool,
    /// The client checks the name at all.
    pub checks_name: bool,
    /// The client cannot take a name with an underscore: `java.net.URI` has no host then.
    pub refuses_underscores: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    /// Connect here, and check for `host`.
    pub address: Option<IpAddr>,
    pub port: u16,
    pub note: Option<&'static str>,
}

/// Why there is no way, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    #[error(
        "it is on the host's own network: ask with --from host for a client that is there too, or with --from public"
    )]
    HostNetwork,
    #[error(
        "it has the network of another container, and that one's names: run the application there, and use localhost"
    )]
    SharedNetwork,
    #[error("it has no network")]
    NoNetwork,
    #[error(
        "it is on Docker's default bridge only, where names do not resolve: attach it and the application to a network of their own (docker network create NAME; docker network connect NAME CONTAINER), or add its address to dbssl.names"
    )]
    DefaultBridge,
    #[error("none of the names by which it can be reached can be in a certificate: add a network alias")]
    NoName,
    #[error(
        "it does not run, so it has no address, and port {0} is not published: start it, or publish the port on 127.0.0.1"
    )]
    NoAddress(u16),
    #[error(
        "port {port} is not published on loopback, and the certificate does not name the container's address, which changes: publish it (127.0.0.1:{port}:{port}), give the container a fixed address, add one to dbssl.names, or ask for --mode verify-ca"
    )]
    AddressNotNamed { port: u16 },
    #[error("port {0} is not published: publish it to let other machines in")]
    NotPublished(u16),
    #[error("port {0} is published on loopback only: publish it on an address that other machines reach")]
    LoopbackOnly(u16),
    #[error("only the plaintext port {plaintext} is published: publish {tls}, where TLS is served, instead")]
    OnlyPlaintext { plaintext: u16, tls: u16 },
    #[error(
        "the certificate names no public name of this server: set host-names in the config, or dbssl.names on the container"
    )]
    NoPublicName,
}

/// The way from `place`.
pub fn endpoint(place: Place, question: &Question<'_>) -> Result<Endpoint, NoWay> {
    match place {
        Place::Container => from_container(question),
        Place::Host => from_host(question),
        Place::Public => from_elsewhere(question),
    }
}

impl Endpoint {
    fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), address: None, port, note: None }
    }
}

fn from_container(question: &Question<'_>) -> Result<Endpoint, NoWay> {
    let Question { inspect, tls_port: port, names, .. } = *question;
    match inspect.network_mode() {
        "host" => return Err(NoWay::HostNetwork),
        "none" => return Err(NoWay::NoNetwork),
        shared if shared.starts_with("container:") => return Err(NoWay::SharedNetwork),
        _ => {}
    }
    let resolving = inspect.attachments().iter().any(|attachment| attachment.network != "bridge");
    if resolving {
        return internal_name(question).map(|host| Endpoint::new(host, port)).ok_or(NoWay::NoName);
    }
    let addresses: Vec<_> = inspect.own_addresses(port).iter().map(SocketAddr::ip).collect();
    if let Some(named) = addresses.iter().find(|address| names.contains(&San::Ip(**address))) {
        return Ok(Endpoint::new(named.to_string(), port));
    }
    let note = Some(
        "names do not resolve on Docker's default bridge, and this address changes when the container is started again: a network of their own is better for both",
    );
    match addresses.first() {
        Some(address) if question.takes_address => {
            let host = internal_name(question).ok_or(NoWay::NoName)?;
            Ok(Endpoint { address: Some(*address), note, ..Endpoint::new(host, port) })
        }
        Some(address) if !question.checks_name => {
            Ok(Endpoint { note, ..Endpoint::new(address.to_string(), port) })
        }
        _ => Err(NoWay::DefaultBridge),
    }
}

/// By which other containers reach it: its own name, which is the only one on the engine, before service and aliases.
fn internal_name(question: &Question<'_>) -> Option<String> {
    let inspect = question.inspect;
    let service = inspect.label(COMPOSE_SERVICE).map(str::to_owned);
    let candidates = [inspect.name().to_string()].into_iter().chain(service).chain(inspect.aliases());
    let named: Vec<String> = candidates
        .filter_map(|name| match san::parse(&name) {
            Ok(San::Dns(dns)) if question.names.contains(&San::Dns(dns.clone())) => Some(dns),
            _ => None,
        })
        .collect();
    let fits = |name: &&String| !(question.refuses_underscores && name.contains('_'));
    named.iter().find(fits).or_else(|| named.first()).cloned()
}

fn from_host(question: &Question<'_>) -> Result<Endpoint, NoWay> {
    let Question { inspect, tls_port: port, names, .. } = *question;
    if inspect.network_mode() == "host" {
        return Ok(Endpoint::new("localhost", port));
    }
    let published = published(inspect, port);
    if let Some(published) = published.iter().find(|published| published.on_loopback()) {
        return Ok(Endpoint::new("localhost", published.port));
    }
    // Published on one address of the host: that address, or a name of the host that leads to it.
    if let Some(Published { address: Some(address), port }) = published.first() {
        if names.contains(&San::Ip(*address)) || !question.checks_name {
            return Ok(Endpoint::new(address.to_string(), *port));
        }
        if question.takes_address
            && let Some(host) = internal_name(question)
        {
            return Ok(Endpoint { address: Some(*address), ..Endpoint::new(host, *port) });
        }
    }
    let addresses: Vec<_> = inspect.own_addresses(port).iter().map(SocketAddr::ip).collect();
    if let Some(named) = addresses.iter().find(|address| names.contains(&San::Ip(**address))) {
        return Ok(Endpoint::new(named.to_string(), port));
    }
    let address = *addresses.first().ok_or(NoWay::NoAddress(port))?;
    let note = Some(
        "the container's address changes when it is started again: publish the port on 127.0.0.1 for one that stays",
    );
    if question.takes_address {
        let host = internal_name(question).ok_or(NoWay::NoName)?;
        return Ok(Endpoint { address: Some(address), note, ..Endpoint::new(host, port) });
    }
    if question.checks_name {
        return Err(NoWay::AddressNotNamed { port });
    }
    Ok(Endpoint { note, ..Endpoint::new(address.to_string(), port) })
}

fn from_elsewhere(question: &Question<'_>) -> Result<Endpoint, NoWay> {
    let Question { inspect, tls_port, plaintext_port, .. } = *question;
    let port = if inspect.network_mode() == "host" {
        tls_port
    } else {
        let published = published(inspect, tls_port);
        let outward = published.iter().find(|published| !published.only_loopback());
        match outward {
            Some(published) => published.port,
            None if !published.is_empty() => return Err(NoWay::LoopbackOnly(tls_port)),
            None if plaintext_port != tls_port && !self::published(inspect, plaintext_port).is_empty() => {
                return Err(NoWay::OnlyPlaintext { plaintext: plaintext_port, tls: tls_port });
            }
            None => return Err(NoWay::NotPublished(tls_port)),
        }
    };
    let fits = |name: &&San| match name {
        // A name for many hosts is none of one.
        San::Dns(dns) => !(dns.starts_with("*.") || question.refuses_underscores && dns.contains('_')),
        San::Ip(address) => !address.is_loopback(),
    };
    let host = question.public_names.iter().filter(|name| question.names.contains(name)).find(fits);
    Ok(Endpoint::new(host.ok_or(NoWay::NoPublicName)?.to_string(), port))
}

/// Names before addresses, those of the host before those of the container, and then by the alphabet.
pub fn public_names(host_names: &Sans, asked: &Sans) -> Vec<San> {
    let all = || host_names.iter().chain(asked);
    let dns = all().filter(|name| matches!(name, San::Dns(_)));
    dns.chain(all().filter(|name| matches!(name, San::Ip(_)))).cloned().collect()
}

/// One port of the host that leads into the container; without an address it is all of the host's.
struct Published {
    address: Option<IpAddr>,
    port: u16,
}

impl Published {
    fn on_loopback(&self) -> bool {
        self.address.is_none_or(|address| address.is_loopback())
    }

    fn only_loopback(&self) -> bool {
        self.address.is_some_and(|address| address.is_loopback())
    }
}

/// As Docker has it now, or, of a container that does not run, as it was asked to.
fn published(inspect: &Inspect, port: u16) -> Vec<Published> {
    let key = format!("{port}/tcp");
    let bindings = |value: &Value| {
        let bindings = value[&key].as_array().into_iter().flatten();
        bindings
            .filter_map(|binding| {
                let port = binding["HostPort"].as_str()?.parse().ok().filter(|port| *port != 0)?;
                let address: Option<IpAddr> = binding["HostIp"].as_str().and_then(|text| text.parse().ok());
                Some(Published { address: address.filter(|address| !address.is_unspecified()), port })
            })
            .collect::<Vec<_>>()
    };
    let now = bindings(&inspect.raw()["NetworkSettings"]["Ports"]);
    if now.is_empty() && !inspect.running() { bindings(&inspect.host_config()["PortBindings"]) } else { now }
}

#[cfg(test)]
mod tests;
