//! Networks and volumes: attaching containers to them, and the brake that is made of one which does not exist.

use async_trait::async_trait;
use bollard::models::{NetworkCreateRequest, NetworkDisconnectRequest};
use serde_json::{Value, json};

use super::{
    DockerError,
    connection::{CALL, Connection, bounded},
    raw,
};
use crate::model::ContainerId;

/// What containers are attached to, or mount.
#[async_trait]
pub trait Networks {
    /// Creates an internal bridge network; an existing one of that name is success.
    async fn create_network(&self, name: &str) -> Result<(), DockerError>;

    async fn network_exists(&self, name: &str) -> Result<bool, DockerError>;

    async fn volume_exists(&self, name: &str) -> Result<bool, DockerError>;

    /// Removes a network; already gone is success.
    async fn remove_network(&self, name: &str) -> Result<(), DockerError>;

    /// Attaches a container to a network with the raw `EndpointConfig`.
    async fn connect_network(
        &self,
        network: &str,
        id: &ContainerId,
        endpoint: &Value,
    ) -> Result<(), DockerError>;

    /// Makes a stopped container impossible to start, by Compose, by the daemon or by hand: it is attached to a
    /// network that does not exist. Docker allows that of a stopped container (a Swarm network may come to this
    /// host later), and [`Self::disconnect_network`] undoes it.
    async fn brake(&self, id: &ContainerId, network: &str) -> Result<(), DockerError>;

    /// Detaches a container from a network, also from one that is gone.
    async fn disconnect_network(&self, network: &str, id: &ContainerId) -> Result<(), DockerError>;
}

#[async_trait]
impl Networks for Connection {
    async fn create_network(&self, name: &str) -> Result<(), DockerError> {
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

    async fn network_exists(&self, name: &str) -> Result<bool, DockerError> {
        match self.get("inspect network", name, &format!("/networks/{}", raw::encode(name))).await {
            Ok(_) => Ok(true),
            Err(error) if error.not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn volume_exists(&self, name: &str) -> Result<bool, DockerError> {
        match self.get("inspect volume", name, &format!("/volumes/{}", raw::encode(name))).await {
            Ok(_) => Ok(true),
            Err(error) if error.not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn remove_network(&self, name: &str) -> Result<(), DockerError> {
        match bounded("remove network", name, CALL, self.client.remove_network(name)).await {
            Err(error) if error.not_found() => Ok(()),
            answer => answer,
        }
    }

    async fn connect_network(
        &self,
        network: &str,
        id: &ContainerId,
        endpoint: &Value,
    ) -> Result<(), DockerError> {
        let body = json!({ "Container": id.as_str(), "EndpointConfig": endpoint });
        let path = format!("/networks/{}/connect", raw::encode(network));
        self.post("connect network", network, &path, Some(&body)).await.map(drop)
    }

    async fn brake(&self, id: &ContainerId, network: &str) -> Result<(), DockerError> {
        let nothing = json!({});
        match self.connect_network(network, id, &nothing).await {
            Err(error) if error.not_found() => {}
            answer => return answer,
        }
        // An engine that does not: then to one that is removed right afterwards.
        self.create_network(network).await?;
        let connected = self.connect_network(network, id, &nothing).await;
        self.remove_network(network).await.and(connected)
    }

    async fn disconnect_network(&self, network: &str, id: &ContainerId) -> Result<(), DockerError> {
        let request = NetworkDisconnectRequest { container: id.to_string(), force: Some(true) };
        bounded("disconnect network", network, CALL, self.client.disconnect_network(network, request)).await
    }
}
