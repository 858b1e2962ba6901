//! When a CA has to be replaced: one of ours by us; a user's by its user, who is reminded until it is.

use time::{Duration, OffsetDateTime};

use super::{
    Line, Notice, Origin, Rules,
    index::{Entry, Index},
    signing,
};
use crate::{model::Roots, pki::Certificate};

/// Days before the end of a user's CA on which its user is reminded again.
const REMINDERS: [i64; 6] = [90, 30, 14, 7, 3, 1];

/// Some time before its end, but not in the first two thirds of its life.
fn due(certificate: &Certificate, rules: &Rules<'_>) -> OffsetDateTime {
    let life = certificate.not_after() - certificate.not_before();
    certificate.not_after() - rules.renew_before.min(life / 3)
}

/// When the issuing CA has to be replaced by us; `None` if it is a user's.
pub(super) fn renewal_at(index: &Index, line: &Line, rules: &Rules<'_>) -> Option<OffsetDateTime> {
    let ours = |entry: &Entry| entry.id == *line.ca.id() && entry.origin == Origin::Generated;
    index.authorities.iter().any(ours).then(|| due(line.ca.certificate(), rules))
}

/// What the user of an issuing CA has to be told now, and when it has to be looked at again; nothing of a CA of ours.
pub(super) fn reminder(
    roots: &Roots,
    index: &Index,
    line: &Line,
    rules: &Rules<'_>,
    now: OffsetDateTime,
) -> (Option<Notice>, Option<OffsetDateTime>) {
    // What stands above it counts as well.
    let first = line.certificates.iter().min_by_key(|one| one.not_after());
    let Some(first) = first.filter(|_| renewal_at(index, line, rules).is_none()) else { return (None, None) };
    let (begin, end) = (due(first, rules), first.not_after());
    let again = REMINDERS.map(|days| end - Duration::days(days)).into_iter().filter(|at| *at > begin);
    // When it is over, ours takes over.
    let over = end + Duration::SECOND;
    let next = std::iter::once(begin).chain(again).chain([over]).find(|at| *at > now);
    let subject = first.subject().to_owned();
    let days = (end - now).whole_days();
    let command = (line.certificates.len() > 1).then(|| signing::command(roots));
    ((begin <= now).then_some(Notice::EndsSoon { subject, end, days, command }), next)
}
