//! A CA, tried out: whether what it issues verifies is known by having it issue.

use std::cell::OnceCell;

use time::{Duration, OffsetDateTime};

use super::{Ca, Certificate, ChainProblem, KeyType, LeafRequest, check_chain, memory};
use crate::model::{San, Sans};

/// What is issued by one CA at one time.
pub struct Trial<'a> {
    ca: &'a Ca,
    now: OffsetDateTime,
    /// A leaf as every server would get it, with what follows it.
    sample: OnceCell<Result<Vec<Certificate>, String>>,
}

impl<'a> Trial<'a> {
    pub fn of(ca: &'a Ca, now: OffsetDateTime) -> Self {
        Self { ca, now, sample: OnceCell::new() }
    }

    /// Checks what would be served, followed by `above`, as the strictest client would that knows but one of the
    /// `roots`, for each of them.
    ///
    /// # Errors
    /// What cannot be made, or why clients would refuse it.
    pub fn verifies(&self, above: &[Certificate], roots: &[&Certificate]) -> Result<(), String> {
        let fixed = [std::slice::from_ref(self.ca.certificate()), self.ca.chain(), above].concat();
        let in_time = |one: &Certificate| one.not_before() <= self.now && self.now < one.not_after();
        let verdict = if fixed.iter().chain(roots.iter().copied()).all(in_time) {
            // While they are all in their time, nothing but themselves decides.
            let key = (
                fixed.iter().map(Certificate::fingerprint).collect(),
                roots.iter().map(|root| root.fingerprint()).collect(),
            );
            memory::TRIED.with(|tried| tried.try_recall(key, || self.verdict(above, roots)))
        } else {
            self.verdict(above, roots)
        };
        verdict?.map_err(|why| format!("clients would refuse a certificate under it: {why}"))
    }

    fn verdict(
        &self,
        above: &[Certificate],
        roots: &[&Certificate],
    ) -> Result<Result<(), ChainProblem>, String> {
        let names = Sans::from([San::Dns("localhost".to_owned())]);
        let issue = || {
            let request = LeafRequest {
                common_name: "localhost",
                sans: &names,
                key_type: KeyType::P256,
                lifetime: Duration::days(1),
            };
            let leaf = self.ca.issue(&request, self.now);
            let leaf = leaf.map_err(|why| format!("a certificate under it cannot be made: {why}"))?;
            Ok(std::iter::once(leaf.certificate).chain(leaf.chain).collect())
        };
        let served = [self.sample.get_or_init(issue).as_ref()?.as_slice(), above].concat();
        let check = |root: &&Certificate| check_chain(&served, std::slice::from_ref(*root), &names, self.now);
        Ok(roots.iter().try_for_each(check))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::test_now;

    #[test]
    fn what_was_found_out_holds_for_as_long_as_all_of_it_is_valid() {
        let (now, year) = (test_now(), Duration::days(365));
        let ca = |name| Ca::generate(name, KeyType::P256, year, now).unwrap();
        let (ca, other) = (ca("one"), ca("other"));
        let told = |root: &Ca, at| Trial::of(&ca, at).verifies(&[], &[root.certificate()]);
        for _ in 0..2 {
            assert_eq!(told(&ca, now), Ok(()));
            assert!(told(&other, now).unwrap_err().contains("no trusted root"));
            assert!(told(&ca, now + year + Duration::DAY).is_err());
        }
    }
}
