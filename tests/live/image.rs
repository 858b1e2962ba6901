//! Which image a test runs.

use super::docker::try_docker;

/// `postgres:15-uid70` is the image of that name in `tests/images`, unless `DBSSL_TEST_IMAGE_POSTGRES_15_UID70` names
/// another.
pub fn image(name: &str) -> String {
    let variable: String =
        name.chars().map(|char| if char.is_ascii_alphanumeric() { char } else { '_' }).collect();
    let variable = format!("DBSSL_TEST_IMAGE_{}", variable.to_uppercase());
    let image = setting(&variable).unwrap_or_else(|| format!("dbssl-test/{name}"));
    assert!(
        try_docker(&["image", "inspect", &image]).is_ok(),
        "there is no image {image}: build it (tests/images/build {name}) or name another in {variable}"
    );
    image
}

/// What the environment says, if it says something.
pub(super) fn setting(variable: &str) -> Option<String> {
    // Tests have no config file; this is how scripts/test speaks to them.
    #[allow(clippy::disallowed_methods)]
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}
