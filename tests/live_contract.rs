//! The real engine keeps what the simulation's does.
#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

#[path = "simulation/contract.rs"]
mod contract;
mod live;

use std::path::Path;

use contract::Ground;
use dbssl::host::docker::Docker;
use live::TestRun;

#[test]
fn the_engine_does_what_the_agent_relies_on() {
    let run = TestRun::begin();
    let network = run.network("own", &[]);
    let prefix = run.name("contract");
    for volume in ["one", "two"] {
        run.volume(&format!("{prefix}-{volume}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let docker = Docker::connect(Path::new("/var/run/docker.sock")).await.unwrap();
        let (image, label) = ("dbssl-test/redis:8", run.label());
        let ground = Ground { docker: &docker, image, prefix: &prefix, label: &label, network: &network };
        let left = contract::is_kept(&ground).await;
        live::docker(&["volume", "rm", &left]);
    });
}
