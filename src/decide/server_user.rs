//! Who the database runs as: whose key file it has to be. Never assumed, always read from the container.

use crate::{model::Owner, shown::Shown};

/// Why nobody can be named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot tell whom the database runs as: {why}")]
pub struct NoUser {
    pub why: String,
}

/// The ids of the server's user inside the container.
///
/// `user` is the container's own setting (`uid`, `uid:gid`, a name, or empty). Empty or root means that the
/// entrypoint drops to one of `candidates`, which `/etc/passwd` (colon-separated lines, passwd(5)) must know.
pub fn server_user(user: &str, passwd: &str, candidates: &[&str]) -> Result<Owner, NoUser> {
    let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
    let group = group.and_then(|group| group.parse().ok());
    if let Ok(uid) = name.parse::<u32>()
        && uid != 0
    {
        let known = entries(passwd).find(|entry| entry.uid == uid);
        return Ok(Owner { uid, gid: group.or(known.map(|entry| entry.gid)).unwrap_or(0) });
    }
    let its_own = !matches!(name, "" | "0" | "root");
    let wanted: Vec<&str> = if its_own { vec![name] } else { candidates.to_vec() };
    let found = wanted.iter().find_map(|wanted| entries(passwd).find(|entry| entry.name == *wanted));
    found.map(|entry| Owner { uid: entry.uid, gid: group.unwrap_or(entry.gid) }).ok_or_else(|| {
        let missing = if its_own { Shown(name).to_string() } else { wanted.join(" or ") };
        NoUser { why: format!("/etc/passwd in the container has no user {missing}") }
    })
}

/// The same ids as the host sees them, with the containers' user namespace beginning at `remap`.
pub fn on_host(owner: Owner, remap: Option<(u32, u32)>) -> Result<Owner, NoUser> {
    let Some((uid, gid)) = remap else { return Ok(owner) };
    let shift = |base: u32, id: u32| {
        base.checked_add(id)
            .ok_or_else(|| NoUser { why: format!("id {id} is out of range for user namespace {base}") })
    };
    Ok(Owner { uid: shift(uid, owner.uid)?, gid: shift(gid, owner.gid)? })
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        Some(Entry { name, uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npostgres:x:999:998::/var/lib/postgresql:/bin/sh\nbroken\n\
                          app:x:1000:1001::/:/bin/sh\n";

    #[test]
    fn the_users_own_word_counts_then_the_image_s() {
        let of = |user| server_user(user, PASSWD, &["postgres"]).map(|owner| (owner.uid, owner.gid)).ok();
        assert_eq!(of(""), Some((999, 998)));
        assert_eq!(of("root"), Some((999, 998)));
        assert_eq!(of("0:0"), Some((999, 0)));
        assert_eq!(of("app"), Some((1000, 1001)));
        assert_eq!(of("app:7"), Some((1000, 7)));
        assert_eq!(of("1000"), Some((1000, 1001)));
        assert_eq!(of("70"), Some((70, 0)));
        assert_eq!(of("70:71"), Some((70, 71)));
        assert_eq!(of("nobody"), None);
    }

    #[test]
    fn a_missing_user_is_named() {
        let error = server_user("", "root:x:0:0::/:/bin/sh\n", &["mysql", "mariadb"]).unwrap_err();
        assert!(error.to_string().ends_with("/etc/passwd in the container has no user mysql or mariadb"));
    }

    #[test]
    fn a_user_that_somebody_made_up_is_one_short_line() {
        let error = server_user(&format!("x\n\u{1b}[2J{}", "y".repeat(5000)), PASSWD, &[]).unwrap_err();
        assert!(error.to_string().contains(r#"no user "x\n\u{1b}[2Jyyy"#), "{error}");
        assert!(error.to_string().len() < 300, "{error}");
    }

    #[test]
    fn a_user_namespace_shifts_both_ids() {
        let owner = Owner { uid: 999, gid: 998 };
        assert_eq!(on_host(owner, None), Ok(owner));
        assert_eq!(on_host(owner, Some((100_000, 200_000))), Ok(Owner { uid: 100_999, gid: 200_998 }));
        assert!(on_host(owner, Some((u32::MAX, 0))).is_err());
    }
}
