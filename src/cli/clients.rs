//! The containers that read the trust bundle, as `dbssl status` shows them: those that are labelled, and of all others
//! those that mount a file which has been replaced.

use serde::Serialize;

use super::report::columns;
use crate::{
    agent::{
        client::{self, Delivery, Look},
        world::World,
    },
    decide::client::{Restart, Withheld},
    host::docker::DockerError,
    model::{
        ContainerName,
        inspect::{Inspect, State},
    },
};

/// How a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// dbssl put the bundle there, and it is the one of today.
    Current,
    /// Its user mounts the bundle there, and what it sees is the one of today.
    Mounted,
    /// To be delivered, or to be restarted.
    Pending,
    /// The bundle cannot be put there, or may be given to nobody.
    Refused,
    /// It mounts a file that has been replaced, and still sees the former one.
    Stale,
}

impl Standing {
    const fn word(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Mounted => "mounted",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Stale => "stale",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Client {
    pub container: String,
    /// Where it has the bundle.
    pub path: String,
    pub standing: Standing,
    /// What is wrong, or awaited, and what to do.
    pub problem: Option<String>,
}

impl Client {
    pub fn is_well(&self) -> bool {
        matches!(self.standing, Standing::Current | Standing::Mounted)
    }
}

/// All of them, by name.
pub async fn all(world: &World) -> Result<Vec<Client>, DockerError> {
    let mut listed = world.docker.list(&world.settings.docker.only).await?;
    listed.retain(|listed| client::listed(world, listed));
    listed.sort_by(|left, right| left.name.cmp(&right.name));
    let mut found = Vec::new();
    for listed in listed {
        let Some(inspect) = world.docker.inspect(listed.id.as_str()).await? else { continue };
        match client::look(world, &inspect).await {
            Ok(look) => found.extend(of(inspect.name(), look)),
            Err(error) => {
                // One that goes away while it is looked at is not shown.
                let now = world.docker.inspect(listed.id.as_str()).await?;
                if now.is_some_and(|now: Inspect| !matches!(now.state(), State::Dead | State::Other)) {
                    return Err(error);
                }
            }
        }
    }
    Ok(found)
}

fn of(name: &ContainerName, look: Look) -> Option<Client> {
    let stale = (!look.stale.is_empty()).then(|| client::stale_text(&look.stale, name));
    let (standing, problem) = match (look.delivery, stale) {
        (Delivery::NotAsked, None) => return None,
        (Delivery::Refused(refused), _) => (Standing::Refused, Some(refused.to_string())),
        (Delivery::NoBundle(why @ Withheld::PrivateKey), _) => (Standing::Refused, Some(why.to_string())),
        (_, Some(stale)) => (Standing::Stale, Some(stale)),
        (Delivery::NoBundle(why @ Withheld::NotInOrder), None) => (Standing::Pending, Some(why.to_string())),
        (Delivery::Due { .. }, None) => {
            (Standing::Pending, Some("the trust bundle is to be put into it".to_owned()))
        }
        (_, None) if look.restart != Restart::NotNeeded => {
            (Standing::Pending, Some(look.restart.to_string()))
        }
        (Delivery::Mounted, None) => (Standing::Mounted, None),
        (Delivery::Current, None) => (Standing::Current, None),
    };
    let path = look.client.map_or_else(|| look.stale.join(", "), |client| client.path);
    Some(Client { container: name.to_string(), path, standing, problem })
}

/// A section of their own; empty without any.
pub fn table(clients: &[Client]) -> String {
    if clients.is_empty() {
        return String::new();
    }
    let mut rows = vec![["CLIENT", "TRUST BUNDLE", "STATE"].map(str::to_owned)];
    rows.extend(
        clients
            .iter()
            .map(|client| [client.container.clone(), client.path.clone(), client.standing.word().to_owned()]),
    );
    let mut text = format!("\n{}", columns(&rows));
    for client in clients {
        if let Some(problem) = &client.problem {
            text.push_str(&format!("\n{}: {problem}\n", client.container));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::client::{Client as Asked, Obstacle, PATH, Refused};

    fn look(delivery: Delivery) -> Look {
        let client = Some(Asked { path: PATH.to_owned(), restart: true });
        Look { client, delivery, stale: Vec::new(), restart: Restart::NotNeeded }
    }

    fn shown(look: Look) -> Option<Client> {
        of(&"app".parse().unwrap(), look)
    }

    #[test]
    fn each_client_has_one_standing_and_a_reason_if_it_is_not_well() {
        let refused = Refused { why: Obstacle::ReadOnly, path: PATH.to_owned(), bundle: "/b".to_owned() };
        for (look, standing, said) in [
            (look(Delivery::Current), Standing::Current, None),
            (look(Delivery::Mounted), Standing::Mounted, None),
            (look(Delivery::NoBundle(Withheld::NotInOrder)), Standing::Pending, Some("not in order")),
            (
                look(Delivery::NoBundle(Withheld::PrivateKey)),
                Standing::Refused,
                Some("coolify-ca.crt holds a private key"),
            ),
            (
                Look { stale: vec!["/ca".to_owned()], ..look(Delivery::NoBundle(Withheld::PrivateKey)) },
                Standing::Refused,
                Some("take the PRIVATE KEY block out"),
            ),
            (look(Delivery::Refused(refused)), Standing::Refused, Some("read-only")),
            (
                Look { restart: Restart::CaChanged, ..look(Delivery::Current) },
                Standing::Pending,
                Some("the CA changed"),
            ),
            (
                Look { stale: vec!["/ca".to_owned()], ..look(Delivery::Mounted) },
                Standing::Stale,
                Some("docker restart app"),
            ),
        ] {
            let client = shown(look).unwrap();
            assert_eq!((client.standing, client.path.as_str()), (standing, PATH));
            assert_eq!(client.is_well(), said.is_none());
            let problem = client.problem.unwrap_or_default();
            assert!(said.map_or(problem.is_empty(), |said| problem.contains(said)), "{problem}");
        }
    }

    #[test]
    fn one_that_did_not_ask_is_shown_only_with_a_file_that_was_replaced() {
        let unasked = || Look { client: None, ..look(Delivery::NotAsked) };
        assert_eq!(shown(unasked()), None);
        let client = shown(Look { stale: vec!["/ca".to_owned()], ..unasked() }).unwrap();
        assert_eq!((client.standing, client.path.as_str()), (Standing::Stale, "/ca"));
    }

    #[test]
    fn the_table_has_a_row_for_each_and_says_nothing_without_any() {
        assert_eq!(table(&[]), "");
        let client = |name: &str, standing, problem: Option<&str>| Client {
            container: name.to_owned(),
            path: PATH.to_owned(),
            standing,
            problem: problem.map(str::to_owned),
        };
        let text = table(&[
            client("app", Standing::Current, None),
            client("worker", Standing::Stale, Some("restart it")),
        ]);
        assert_eq!(
            text,
            "\nCLIENT  TRUST BUNDLE                   STATE\n\
             app     /etc/ssl/certs/coolify-ca.crt  current\n\
             worker  /etc/ssl/certs/coolify-ca.crt  stale\n\
             \nworker: restart it\n"
        );
    }
}
