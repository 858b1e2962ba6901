//! Networks: attaching containers to them, and the brake that is made of one which does not exist.

use bollard::models::{NetworkCreateRequest, NetworkDisconnectRequest};
use serde_json::{Value, json};

use super::{CALL, Docker, DockerError, bounded, raw};
use crate::model::ContainerId;

impl Docker {
    /// Creates an internal bridge network; an existing one of that name is success.
    pub async fn create_network(&self, name: &str) -> Result<(), DockerError> {
        if self.network_exists(name).await? {
            return Ok(());
        }
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".into()),
            internal: Some(true),
            ..NetworkCreateRequest::default()
        };
        bounded("create network", name, CALL, self.client.create_network(request)).await.map(drop)
    }

    pub async fn network_exists(&self, name: &str) -> Result<bool, DockerError> {
        match self.get("inspect network", name, &format!("/networks/{}", raw::encode(name))).await {
            Ok(_) => Ok(true),
            Err(error) if error.not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Names of the networks that begin with `prefix`.
    pub async fn networks(&self, prefix: &str) -> Result<Vec<String>, DockerError> {
        let answer = self.get("list networks", prefix, "/networks").await?;
        let names = answer.as_array().into_iter().flatten().filter_map(|network| network["Name"].as_str());
        Ok(names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect())
    }

    /// Removes a network; already gone is success.
    pub async fn remove_network(&self, name: &str) -> Result<(), DockerError> {
        match bounded("remove network", name, CALL, self.client.remove_network(name)).await {
            Err(error) if error.not_found() => Ok(()),
            answer => answer,
        }
    }

    /// Attaches a container to a network with the raw `EndpointConfig`.
    pub async fn connect_network(
        &self,
        network: &str,
        id: &ContainerId,
        endpoint: &Value,
    ) -> Result<(), DockerError> {
        let body = json!({ "Container": id.as_str(), "EndpointConfig": endpoint });
        let path = format!("/networks/{}/connect", raw::encode(network));
        self.post("connect network", network, &path, Some(&body)).await.map(drop)
    }

    /// Makes a stopped container impossible to start, by Compose, by the daemon or by hand: it is attached to a
    /// network that does not exist. Docker allows that of a stopped container (a Swarm network may come to this
    /// host later), and [`Self::disconnect_network`] undoes it.
    pub async fn brake(&self, id: &ContainerId, network: &str) -> Result<(), DockerError> {
        let nothing = json!({});
        match self.connect_network(network, id, &nothing).await {
            Err(error) if error.not_found() => {}
            answer => return answer,
        }
        // An engine that does not: then to one that is removed right afterwards.
        self.create_network(network).await?;
        self.connect_network(network, id, &nothing).await?;
        self.remove_network(network).await
    }

    /// Detaches a container from a network, also from one that is gone.
    pub async fn disconnect_network(&self, network: &str, id: &ContainerId) -> Result<(), DockerError> {
        let request = NetworkDisconnectRequest { container: id.to_string(), force: Some(true) };
        bounded("disconnect network", network, CALL, self.client.disconnect_network(network, request)).await
    }
}
