//! What is done in which situation, as text to be read and judged: `tests/golden/plans.txt`. After a change that is
//! meant: `GOLDEN=write cargo test --test golden_plans`, and read the difference.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, sync::OnceLock};

use dbssl::{
    decide::{
        external::{External, Held},
        gates::Refusal,
        plan::{
            Directory, IssueReason, Lenience, Life, Observed, Plaintext, Plan, ServeReason, Serving, Step,
            Strangers, Wait, Wiring, plan,
        },
    },
    model::{ClientAuth, Desired, Healthcheck, KeyType, Mode, Redeploy, San, Sans},
    pki::{Ca, Certificate, LeafRequest},
};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

const NAME: &str = "shop-db-1";

fn issued() -> OffsetDateTime {
    OffsetDateTime::parse("2026-01-01T00:00:00Z", &Rfc3339).unwrap()
}

/// Two CAs and what they issued at [`issued`] for 90 days.
struct Pki {
    ours: Certificate,
    leaf: Certificate,
    /// Of the same CA, for the same names.
    another: Certificate,
    /// Of the same CA, for other names.
    renamed: Certificate,
    /// Of the other CA.
    strange: Certificate,
}

fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let (p256, century) = (KeyType::P256, Duration::days(36_500));
        let ours = Ca::generate("host", p256, century, issued()).unwrap();
        let other = Ca::generate("other", p256, century, issued()).unwrap();
        let leaf = |ca: &Ca, sans: &Sans| {
            let lifetime = Duration::days(90);
            ca.issue(&LeafRequest { common_name: NAME, sans, key_type: p256, lifetime }, issued())
                .unwrap()
                .certificate
        };
        Pki {
            ours: ours.certificate().clone(),
            leaf: leaf(&ours, &names(&[NAME, "db"])),
            another: leaf(&ours, &names(&[NAME, "db"])),
            renamed: leaf(&ours, &names(&[NAME, "old"])),
            strange: leaf(&other, &names(&[NAME, "db"])),
        }
    })
}

fn names(names: &[&str]) -> Sans {
    names.iter().map(|name| San::Dns((*name).to_owned())).collect()
}

/// A database in good order, half a month after its certificate was issued.
fn settled() -> Observed {
    let chain = vec![pki().leaf.clone()];
    Observed {
        desired: Desired {
            mode: Mode::VerifyFull,
            engine: None,
            names: Sans::new(),
            redeploy: Redeploy::Auto,
            healthcheck: Healthcheck::Adapt,
            client_auth: ClientAuth::None,
        },
        container: NAME.to_owned(),
        names: names(&[NAME, "db"]),
        issuer: pki().ours.clone(),
        upper: Vec::new(),
        external: External::default(),
        wiring: Wiring::Present,
        directory: Directory::Sound(chain.clone()),
        life: Life::Ready,
        serving: Serving::Tls { chain, verified: Ok(()) },
        plaintext: Plaintext::Refused { ours: true },
        strangers: Strangers::NotLooked,
    }
}

fn lives() -> Vec<(&'static str, Life)> {
    vec![
        ("created", Life::Created),
        ("down", Life::Down("stopped")),
        ("starting", Life::Starting("nothing answers on its port".into())),
        ("busy", Life::Busy("pg_dump".into())),
        ("ready", Life::Ready),
    ]
}

/// With the day of the year on which it is looked at.
fn directories() -> Vec<(&'static str, Directory, i64)> {
    let sound = |leaf: &Certificate| Directory::Sound(vec![leaf.clone()]);
    vec![
        ("missing", Directory::Missing, 15),
        (
            "damaged",
            Directory::Damaged(vec![
                "server.key has mode 0644, not 0600".into(),
                "server.crt is missing".into(),
            ]),
            15,
        ),
        ("empty", Directory::Sound(Vec::new()), 15),
        ("of another CA", sound(&pki().strange), 15),
        ("other names", sound(&pki().renamed), 15),
        ("another chain", Directory::Sound(vec![pki().leaf.clone(), pki().ours.clone()]), 15),
        ("due", sound(&pki().leaf), 61),
        ("expired", sound(&pki().leaf), 100),
        ("sound", sound(&pki().leaf), 15),
    ]
}

fn servings() -> Vec<(&'static str, Serving)> {
    let tls = |leaf: &Certificate, verified| Serving::Tls { chain: vec![leaf.clone()], verified };
    vec![
        ("its leaf", tls(&pki().leaf, Ok(()))),
        (
            "its leaf, not verified",
            tls(&pki().leaf, Err("the name db.example is not in the certificate".into())),
        ),
        ("another leaf", tls(&pki().another, Ok(()))),
        ("no TLS", Serving::Plaintext),
        ("broken TLS", Serving::Failed("the server closed the connection".into())),
        ("unreachable", Serving::Unreachable("connection refused".into())),
    ]
}

fn plaintexts() -> Vec<(&'static str, Plaintext)> {
    vec![
        ("not looked", Plaintext::NotLooked),
        ("accepted", Plaintext::Accepted),
        ("refused by us", Plaintext::Refused { ours: true }),
        ("refused by others", Plaintext::Refused { ours: false }),
        ("unknown", Plaintext::Unknown("pg_hba.conf cannot be managed: it is read-only".into())),
    ]
}

fn strangers() -> Vec<(&'static str, Strangers)> {
    vec![
        ("not looked", Strangers::NotLooked),
        ("accepted", Strangers::Accepted),
        ("refused by us", Strangers::Refused { ours: true }),
        ("refused by others", Strangers::Refused { ours: false }),
        ("refused without need", Strangers::RefusedWithoutNeed),
        ("unknown", Strangers::Unknown("this server demands a certificate of one account or another".into())),
    ]
}

/// With the day of the year on which it is looked at.
fn externals() -> Vec<(&'static str, External, i64)> {
    let asked = External { asked: true, ..External::default() };
    let held = |problem: Option<&str>| Held {
        signer: "CN=Company Root".into(),
        renew_at: issued() + Duration::days(60),
        falls_back_at: issued() + Duration::days(87),
        problem: problem.map(str::to_owned),
    };
    let served = External { held: Some(held(None)), ..asked.clone() };
    let answer = Some(vec![pki().strange.clone()]);
    vec![
        ("awaited", asked.clone(), 15),
        ("it came back", External { answer, ..asked.clone() }, 15),
        ("refused", External { refused: Some("it is of another key".into()), ..asked.clone() }, 15),
        ("served", served.clone(), 15),
        ("served, its successor awaited", served.clone(), 61),
        ("served, and nobody is asked any more", External { asked: false, ..served.clone() }, 61),
        ("served, beside a former CA of ours", External { stale: true, ..served }, 15),
        ("of no use any more", External { held: Some(held(Some("it does not name db"))), ..asked }, 15),
    ]
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::AutoRemove,
        Refusal::ImageGone { id: "sha256:0123".into() },
        Refusal::Orchestrated { by: "Docker Swarm", label: "com.docker.swarm.task.id".into() },
        Refusal::DataNotMounted { directory: "/var/lib/postgresql/data".into() },
        Refusal::OwnLayer { paths: vec!["/etc/motd".into()] },
        Refusal::BorrowsFrom { field: "NetworkMode", value: "container:app".into() },
        Refusal::Dependents { names: vec!["app".into()] },
        Refusal::TargetTaken { target: "/var/lib/postgresql/certs".into(), by: "bind /srv/certs".into() },
        Refusal::SourceMoved { source: "/srv/pg".into(), destination: "/var/lib/postgresql/data".into() },
        Refusal::NoNetwork,
        Refusal::Rootless,
        Refusal::Command {
            why: "flags cannot be appended to its command, since it is a string for the shell".into(),
        },
    ]
}

/// Situations, the plans for all three policies, in sections.
#[derive(Default)]
struct Book {
    text: String,
    plans: Vec<Plan>,
}

impl Book {
    fn section(&mut self, title: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        writeln!(self.text, "{gap}# {title}").unwrap();
    }

    /// One line for each plan, with the policies under which it is made.
    fn situation(&mut self, situation: &str, observed: &Observed, day: i64) {
        let now = issued() + Duration::days(day);
        let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
        for allowed in Redeploy::ALL {
            let plan = plan(observed, allowed, now);
            let text = plan.to_string();
            // The CA's name holds a number drawn at random.
            let text = match text.split_once("CN=dbssl CA other ") {
                Some((before, after)) => format!("{before}CN=dbssl CA other XXXXXXXX{}", &after[8..]),
                None => text,
            };
            self.plans.push(plan);
            match lines.iter_mut().find(|(said, _)| *said == text) {
                Some((_, policies)) => policies.push(allowed.word()),
                None => lines.push((text, vec![allowed.word()])),
            }
        }
        writeln!(self.text, "{situation}").unwrap();
        for (text, policies) in lines {
            let policies = if policies.len() == 3 { "always".to_owned() } else { policies.join(", ") };
            writeln!(self.text, "    {policies}: {text}").unwrap();
        }
    }
}

fn book() -> Book {
    let mut book = Book::default();
    book.section("Left alone");
    for (life, looks) in lives() {
        let flags = vec!["ssl_cert_file=/own.crt".to_owned()];
        book.situation(
            &format!("TLS of somebody else, {life}"),
            &Observed {
                wiring: Wiring::Foreign(flags),
                life: looks,
                serving: Serving::NotLooked,
                ..settled()
            },
            15,
        );
    }
    for refusal in refusals() {
        let wiring = Wiring::Refused(vec![refusal]);
        book.situation(
            "no wiring, refused",
            &Observed { wiring, directory: Directory::Missing, ..settled() },
            15,
        );
    }
    let wiring = Wiring::Refused(refusals()[..2].to_vec());
    book.situation("no wiring, refused twice", &Observed { wiring, ..settled() }, 15);

    book.section("The wiring is missing");
    for (life, looks) in lives() {
        for (directory, holds, day) in
            directories().into_iter().filter(|(name, ..)| matches!(*name, "missing" | "due" | "sound"))
        {
            let observed = Observed {
                wiring: Wiring::Missing,
                life: looks.clone(),
                directory: holds,
                serving: Serving::NotLooked,
                plaintext: Plaintext::NotLooked,
                ..settled()
            };
            book.situation(&format!("{life}, directory {directory}"), &observed, day);
        }
    }

    book.section("Wired: the directory");
    for (life, looks) in lives() {
        for (directory, holds, day) in directories() {
            let up = matches!(looks, Life::Busy(_) | Life::Ready);
            let seen = if up {
                settled()
            } else {
                Observed { serving: Serving::NotLooked, plaintext: Plaintext::NotLooked, ..settled() }
            };
            book.situation(
                &format!("{life}, directory {directory}"),
                &Observed { life: looks.clone(), directory: holds, ..seen },
                day,
            );
        }
    }

    book.section("Wired, ready, directory sound: what is served, and plaintext");
    for mode in [Mode::VerifyFull, Mode::Prefer] {
        for (serving, seen) in servings() {
            let telling =
                |plaintext: &str| serving == "its leaf" || matches!(plaintext, "accepted" | "refused by us");
            for (plaintext, gets_in) in plaintexts().into_iter().filter(|(name, _)| telling(name)) {
                let mut observed = Observed { serving: seen.clone(), plaintext: gets_in, ..settled() };
                observed.desired.mode = mode;
                book.situation(&format!("{mode}: serves {serving}, plaintext {plaintext}"), &observed, 15);
            }
        }
    }

    book.section("Wired, ready, directory sound: clients without a certificate");
    for client_auth in ClientAuth::ALL {
        let telling = |strangers: &str| {
            client_auth == ClientAuth::Required || matches!(strangers, "not looked" | "refused without need")
        };
        for (strangers, get_in) in strangers().into_iter().filter(|(name, _)| telling(name)) {
            for (plaintext, gets_in) in
                plaintexts().into_iter().filter(|(name, _)| matches!(*name, "accepted" | "refused by us"))
            {
                let mut observed = Observed { strangers: get_in.clone(), plaintext: gets_in, ..settled() };
                observed.desired.client_auth = client_auth;
                let title =
                    format!("{client_auth}: without a certificate {strangers}, plaintext {plaintext}");
                book.situation(&title, &observed, 15);
            }
        }
    }

    somebody_else_signs(&mut book);
    everything_at_once(&mut book);
    book
}

fn somebody_else_signs(book: &mut Book) {
    book.section("Wired, ready: somebody else signs");
    for (title, external, day) in externals() {
        // Their leaf lies there where one is held, and is served.
        let chain = vec![if external.held.is_some() { &pki().strange } else { &pki().leaf }.clone()];
        let serving = Serving::Tls { chain: chain.clone(), verified: Ok(()) };
        let directory = Directory::Sound(chain);
        book.situation(title, &Observed { external, directory, serving, ..settled() }, day);
    }
}

fn everything_at_once(book: &mut Book) {
    book.section("Everything at once");
    let observed = Observed {
        directory: Directory::Damaged(vec!["server.key is missing".into()]),
        serving: Serving::Plaintext,
        plaintext: Plaintext::Accepted,
        ..settled()
    };
    book.situation("wired, directory damaged, serves no TLS, plaintext accepted", &observed, 15);
    for (added, dropped) in
        [(&["db", NAME, "new"][..], "a name more"), (&[NAME], "a name less"), (&[NAME, "x"], "both")]
    {
        book.situation(dropped, &Observed { names: names(added), ..settled() }, 15);
    }
}

#[test]
fn plans_are_as_they_were_judged() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/plans.txt");
    let text = book().text;
    if std::env::var_os("GOLDEN").is_some_and(|word| word == "write") {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    let differs = text.lines().zip(golden.lines()).position(|(now, then)| now != then);
    if let Some(line) = differs {
        let around =
            |text: &str| text.lines().skip(line.saturating_sub(2)).take(4).collect::<Vec<_>>().join("\n");
        panic!(
            "{}:{}\n--- judged\n{}\n--- now\n{}",
            path.display(),
            line + 1,
            around(&golden),
            around(&text)
        );
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

/// A new word has to be added here, and then to be seen in a plan.
#[test]
fn every_word_of_a_plan_occurs_in_the_golden_file() {
    let mut seen = BTreeSet::new();
    for plan in book().plans {
        let (word, steps) = match plan {
            Plan::Settled { .. } => ("settled", vec![]),
            Plan::Act(steps) => ("act", steps),
            Plan::Wait { pending, why } => {
                let why = match why {
                    Wait::Life(Life::Created) => "life created",
                    Wait::Life(Life::Down(_)) => "life down",
                    Wait::Life(Life::Starting(_)) => "life starting",
                    Wait::Life(Life::Busy(_)) => "life busy",
                    Wait::Life(Life::Ready) => panic!("waits although it is ready"),
                    Wait::Policy(Redeploy::Manual) => "policy manual",
                    Wait::Policy(Redeploy::Reload) => "policy reload",
                    Wait::Policy(Redeploy::Auto) => panic!("auto holds nothing back"),
                    Wait::Unreachable(_) => "unreachable",
                };
                (why, pending)
            }
            Plan::Refuse(refusals) => {
                for refusal in refusals {
                    seen.insert(match refusal {
                        Refusal::AutoRemove => "auto-remove",
                        Refusal::ImageGone { .. } => "image-gone",
                        Refusal::Orchestrated { .. } => "orchestrated",
                        Refusal::DataNotMounted { .. } => "data-not-mounted",
                        Refusal::OwnLayer { .. } => "own-layer",
                        Refusal::BorrowsFrom { .. } => "borrows-from",
                        Refusal::Dependents { .. } => "dependents",
                        Refusal::TargetTaken { .. } => "target-taken",
                        Refusal::SourceMoved { .. } => "source-moved",
                        Refusal::NoNetwork => "no-network",
                        Refusal::Rootless => "rootless",
                        Refusal::Command { .. } => "command",
                    });
                }
                ("refuse", vec![])
            }
            Plan::Foreign(_) => ("foreign", vec![]),
            Plan::NotEnforced(Lenience::Plaintext(_)) => ("not enforced plaintext", vec![]),
            Plan::NotEnforced(Lenience::Strangers(_)) => ("not enforced strangers", vec![]),
        };
        seen.insert(word);
        for step in steps {
            seen.insert(match step {
                Step::Issue(IssueReason::First) => "issue first",
                Step::Issue(IssueReason::Damaged(_)) => "issue damaged",
                Step::Issue(IssueReason::OtherIssuer { .. }) => "issue other issuer",
                Step::Issue(IssueReason::OtherChain) => "issue other chain",
                Step::Issue(IssueReason::Signed { .. }) => "issue signed",
                Step::Issue(IssueReason::FallsBack { .. }) => "issue falls back",
                Step::Issue(IssueReason::Beside) => "issue beside",
                Step::Issue(IssueReason::Names { .. }) => "issue names",
                Step::Issue(IssueReason::Unverified(_)) => "issue unverified",
                Step::Issue(IssueReason::Due { .. }) => "issue due",
                Step::Recreate => "recreate",
                Step::Serve(ServeReason::Issued) => "serve issued",
                Step::Serve(ServeReason::ServesOther) => "serve other",
                Step::Serve(ServeReason::ServesPlaintext) => "serve plaintext",
                Step::Serve(ServeReason::Broken(_)) => "serve broken",
                Step::Enforce => "enforce",
                Step::Relax => "relax",
                Step::Demand => "demand",
                Step::Excuse => "excuse",
            });
        }
    }
    // 6 plans that do not wait, 7 waits, 12 refusals, 19 steps.
    assert_eq!(seen.len(), 44, "{seen:?}");
}

/// What must hold of every plan, whatever the situation.
#[test]
fn plans_keep_the_promises() {
    let mut looked = 0;
    let all_wiring =
        [Wiring::Present, Wiring::Missing, Wiring::Refused(refusals()), Wiring::Foreign(vec!["x".into()])];
    for wiring in all_wiring {
        for (_, life) in lives() {
            for (_, directory, day) in directories() {
                for (_, serving) in servings().into_iter().chain([("not looked", Serving::NotLooked)]) {
                    for (_, plaintext) in plaintexts() {
                        for (mode, client_auth, strangers) in asked_of_clients() {
                            let mut observed = Observed {
                                wiring: wiring.clone(),
                                life: life.clone(),
                                directory: directory.clone(),
                                serving: serving.clone(),
                                plaintext: plaintext.clone(),
                                strangers,
                                ..settled()
                            };
                            observed.desired.mode = mode;
                            observed.desired.client_auth = client_auth;
                            for allowed in Redeploy::ALL {
                                let plan = plan(&observed, allowed, issued() + Duration::days(day));
                                keeps_the_promises(&observed, allowed, &plan);
                                looked += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(looked, 4 * 5 * 9 * 7 * 5 * 17 * 3);
}

/// Each mode, and in the strictest whatever may be seen of clients without a certificate.
fn asked_of_clients() -> Vec<(Mode, ClientAuth, Strangers)> {
    let none = Mode::ALL.map(|mode| (mode, ClientAuth::None, Strangers::NotLooked));
    let all = strangers().into_iter().flat_map(|(_, strangers)| {
        [ClientAuth::None, ClientAuth::Required]
            .map(|client_auth| (Mode::VerifyFull, client_auth, strangers.clone()))
    });
    let looked = all.filter(|(_, client_auth, strangers)| {
        *client_auth == ClientAuth::Required || *strangers != Strangers::NotLooked
    });
    let relaxed = (Mode::Prefer, ClientAuth::None, Strangers::RefusedWithoutNeed);
    none.into_iter().chain(looked).chain([relaxed]).collect()
}

fn keeps_the_promises(observed: &Observed, allowed: Redeploy, plan: &Plan) {
    let say = || format!("{observed:?}\n{allowed}: {plan}");
    if let Plan::Act(steps) = plan {
        let at = |is: fn(&Step) -> bool| steps.iter().position(is);
        let (issue, serve) =
            (at(|step| matches!(step, Step::Issue(_))), at(|step| matches!(step, Step::Serve(_))));
        let (recreate, enforce) = (at(|step| *step == Step::Recreate), at(|step| *step == Step::Enforce));
        assert!(!steps.is_empty(), "{}", say());
        assert!(matches!(observed.wiring, Wiring::Present | Wiring::Missing), "not ours to touch\n{}", say());
        if allowed == Redeploy::Manual {
            let renews = |step: &Step| matches!(step, Step::Issue(_) | Step::Serve(_));
            assert!(steps.iter().all(renews), "{}", say());
        }
        assert_ne!(observed.life, Life::Created, "{}", say());
        assert_eq!(recreate.is_some(), observed.wiring == Wiring::Missing, "{}", say());
        if recreate.is_some() {
            assert_eq!((&observed.life, allowed), (&Life::Ready, Redeploy::Auto), "{}", say());
            assert!(serve.is_none() && enforce.is_none(), "{}", say());
        }
        if matches!(observed.life, Life::Down(_) | Life::Starting(_)) {
            assert_eq!(steps.len(), 1, "only its directory is mended\n{}", say());
            assert!(issue.is_some(), "{}", say());
        }
        if let (Some(issue), Some(serve)) = (issue, serve.or(recreate)) {
            assert!(issue < serve, "{}", say());
        }
        assert!(at(|step| *step == Step::Relax).is_none_or(|relax| relax == 0), "{}", say());
        assert!(at(|step| *step == Step::Excuse).is_none_or(|excuse| excuse == 0), "{}", say());
        if let Some(demand) = at(|step| *step == Step::Demand) {
            assert_eq!(demand + 1, steps.len(), "it needs TLS that is proved\n{}", say());
            assert_eq!(observed.desired.client_auth, ClientAuth::Required, "{}", say());
        }
        if let Some(enforce) = enforce {
            let tls = matches!(observed.serving, Serving::Tls { verified: Ok(()), .. });
            assert!(tls || serve.is_some_and(|serve| serve < enforce), "nobody could get in\n{}", say());
            assert!(observed.desired.mode.enforces(), "{}", say());
        }
    }
    if let Plan::Settled { .. } = plan {
        assert!(
            observed.wiring == Wiring::Present && matches!(observed.life, Life::Ready | Life::Busy(_)),
            "{}",
            say()
        );
        let leaf = matches!(&observed.directory, Directory::Sound(chain) if chain == &[pki().leaf.clone()]);
        assert!(leaf, "{}", say());
        let tls = matches!(&observed.serving, Serving::Tls { verified: Ok(()), .. });
        assert!(tls, "all is well, and nobody saw it\n{}", say());
        if observed.desired.mode.enforces() {
            assert_eq!(observed.plaintext, Plaintext::Refused { ours: true }, "{}", say());
        }
        if observed.desired.client_auth == ClientAuth::Required {
            assert_eq!(observed.strangers, Strangers::Refused { ours: true }, "{}", say());
        }
    }
}
