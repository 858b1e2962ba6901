//! From one CA to the next: which databases have still to be seen serving what the CA in force issued, and what comes
//! after the last of them.
//!
//! The CA store has both CAs in the bundle from the first moment, and what is served verifies for clients of either.
//! A database that is stopped, or that cannot be changed now, holds up nothing but the end of the former CA.

use std::collections::HashSet;

use tracing::{error, info, warn};

use super::world::World;
use crate::{
    host::{
        castore::{Authority, CaStore},
        certdir::CertDir,
        clock,
    },
    model::ContainerName,
    pki::certificates_within,
    shown::with_causes,
};

/// What is left to be seen.
#[derive(Debug, Default)]
pub struct Rollover {
    /// Not yet seen in line with the CA in force.
    outstanding: HashSet<ContainerName>,
    /// Whether anything has changed since everything was in line.
    open: bool,
    /// Whether the outstanding ones are all that there are: nobody is, before Docker was asked.
    listed: bool,
    said: Option<String>,
}

impl Rollover {
    /// Another CA, another chain, or a point in time that was waited for.
    pub fn reopen(&mut self, ours: impl Iterator<Item = ContainerName>) {
        self.outstanding.extend(ours);
        self.open = true;
    }

    /// Which containers there are is about to be asked (`false`), and every one of ours has been doubted (`true`).
    pub fn listed(&mut self, listed: bool) {
        self.listed = listed;
    }

    /// A container that has come, or that something happened to.
    pub fn doubt(&mut self, name: &ContainerName) {
        self.outstanding.insert(name.clone());
    }

    pub fn forget(&mut self, name: &ContainerName) {
        self.outstanding.remove(name);
    }

    /// The outcome of a run.
    pub fn seen(&mut self, name: &ContainerName, in_line: bool) {
        if in_line {
            self.outstanding.remove(name);
        } else {
            self.outstanding.insert(name.clone());
        }
    }

    /// If all is in line: records the proof, and takes out of the bundle what is not needed any more; what is in force
    /// then.
    pub fn settle(&mut self, world: &World, host_name: &str) -> Option<Authority> {
        if !self.open || !self.listed || !self.outstanding.is_empty() {
            return None;
        }
        self.open = false;
        let (now, authority) = (clock::now(), world.authority());
        let subject = authority.issuing.certificate().subject();
        match CaStore::proved(&world.roots, authority.issuing.id(), now) {
            Ok(true) if authority.roots.len() > 1 => {
                info!(ca = subject, "the rollover is proved: every database serves what this CA issued");
            }
            Ok(_) => {}
            Err(error) => {
                error!(error = %with_causes(&error), "the proof of the rollover cannot be recorded");
            }
        }
        let rules = world.rules(host_name);
        match CaStore::may_retire(&world.roots, rules.overlap, authority.issuing.id(), now) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                self.say(with_causes(&error), |error| error!(error, "the CA store cannot be read"));
                self.open = true;
                return None;
            }
        }
        let held_up = held_up(world);
        if held_up.is_empty() {
            match CaStore::retire(&world.roots, &rules, now) {
                Ok(authority) => {
                    self.said = None;
                    return Some(authority);
                }
                Err(error) => self.say(with_causes(&error), |error| {
                    error!(error, "the former CA cannot be taken out of the bundle now: it is tried again");
                }),
            }
        } else {
            self.say(held_up.join(", "), |directories| {
                warn!(
                    directories,
                    "the former CA stays in the bundle: containers that are not there now have certificates of it; remove these directories if they do not come back"
                );
            });
        }
        // Should one of them come back, it is the last that was waited for.
        self.open = true;
        None
    }

    /// Says a thing once, until something else is to be said.
    fn say(&mut self, what: String, tell: impl FnOnce(&str)) {
        if self.said.as_ref() != Some(&what) {
            tell(&what);
        }
        self.said = Some(what);
    }
}

/// Certificate directories whose certificate another CA issued: those of containers that are not there, as everything
/// else is in line.
fn held_up(world: &World) -> Vec<String> {
    let authority = world.authority();
    let issuer = authority.issuing.certificate();
    let of_another = |directory: &CertDir| {
        directory.contents().into_iter().any(|file| {
            let chain = certificates_within(file.expose());
            let ours = chain.iter().all(|one| one.is_ca() || one.signed_by(issuer));
            !ours && !authority.uploaded.signed(&chain)
        })
    };
    let all = CertDir::all(&world.roots.databases()).into_iter();
    all.filter(of_another).map(|directory| directory.path().display().to_string()).collect()
}
