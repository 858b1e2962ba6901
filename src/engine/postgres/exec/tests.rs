//! The scripts, run by the shells that containers have, and their answers.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::{Command, Stdio},
};

use super::*;
use crate::engine::{
    script::{Refusal, parse_done},
    shells::{Output, SHELLS, run, tools},
};

fn read_in(folder: &Path, more: &[&str]) -> ExecScript {
    let mut command = vec!["postgres".to_owned(), "-D".to_owned(), folder.display().to_string()];
    command.extend(more.iter().map(|word| (*word).to_owned()));
    read_hba(&command, &Env::new())
}

fn in_each_shell(test: impl Fn(&dyn Fn(&ExecScript) -> Output, &Path, &Path)) {
    for shell in SHELLS {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("da ta'\"$(id)\\");
        fs::create_dir(&data).unwrap();
        let path = tools(shell, folder.path());
        test(&|script| run(shell, &path, Path::new("."), script), &data, &folder.path().join("tools"));
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ScriptError>) -> Refusal {
    match result {
        Err(ScriptError::Refused { refusal, said }) => {
            assert!(!said.is_empty());
            refusal
        }
        other => panic!("expected a refusal, found {other:?}"),
    }
}

const CONTENT: &[u8] = b"# caf\xe9\x00\r\nlocal all all trust\nhost all all all scram-sha-256";

#[test]
fn the_file_is_read_to_the_last_byte() {
    in_each_shell(|run, data, _| {
        let file = data.join("pg_hba.conf");
        for content in [CONTENT, b"", b"\n\n\n", b"dbssl-hba 1 server 0 0 600 1 1\n/x"] {
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
            let hba = parse_hba(run(&read_in(data, &[])).borrow()).unwrap();
            let meta = fs::metadata(&file).unwrap();
            assert_eq!(hba.content, content);
            assert_eq!(hba.mode, 0o640);
            assert_eq!(hba.owner, Owner { uid: meta.uid(), gid: meta.gid() });
            assert_eq!(hba.source, HbaSource::Default);
            assert_eq!(Path::new(&hba.path), file.canonicalize().unwrap());
        }
    });
}

#[test]
fn the_file_in_force_is_the_servers_word_then_the_commands_then_the_configurations() {
    in_each_shell(|run, data, tools| {
        let file = |name: &str| {
            fs::write(data.join(name), name).unwrap();
            data.join(name).display().to_string()
        };
        let content = |script: &ExecScript| {
            let hba = parse_hba(run(script).borrow()).unwrap();
            (hba.source, String::from_utf8(hba.content).unwrap())
        };
        let quoted = |path: &str| path.replace('\'', "''");
        let expect = |source: HbaSource, name: &str| (source, name.to_owned());
        file("pg_hba.conf");
        assert_eq!(content(&read_in(data, &[])), expect(HbaSource::Default, "pg_hba.conf"));
        // A quote in the path is more than the script reads from a configuration: so a path without one.
        let plain = tools.with_file_name("plain.conf");
        fs::write(&plain, "plain").unwrap();
        fs::write(
            data.join("postgresql.conf"),
            format!("#hba_file = '/no'\nhba_file='/old'\n HBA_file  '{}' # new\n", plain.display()),
        )
        .unwrap();
        assert_eq!(content(&read_in(data, &[])), expect(HbaSource::Configuration, "plain"));
        let other = data.join("other.conf");
        fs::write(&other, "hba_file = 'x'\nnothing = 'else'\n").unwrap();
        let conf = format!("config_file={}", other.display());
        assert_eq!(refusal(parse_hba(run(&read_in(data, &["-c", &conf])).borrow())), Refusal::HbaMissing);
        let named = format!("--hba-file={}", file("named"));
        assert_eq!(content(&read_in(data, &[&named])), expect(HbaSource::Command, "named"));
        let answer = file("served");
        let psql = tools.join("psql");
        fs::write(&psql, format!("#!/bin/sh\necho '{}'\n", quoted(&answer).replace("''", "'\\''"))).unwrap();
        fs::set_permissions(&psql, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(content(&read_in(data, &[&named])), expect(HbaSource::Server, "served"));
        // An answer that is no path, and no answer at all.
        for script in ["#!/bin/sh\necho password:\n", "#!/bin/sh\necho /x; exit 2\n"] {
            fs::write(&psql, script).unwrap();
            assert_eq!(content(&read_in(data, &[&named])), expect(HbaSource::Command, "named"));
        }
    });
}

#[test]
fn the_server_is_asked_where_its_own_notes_say_that_it_listens() {
    in_each_shell(|run, data, tools| {
        fs::write(data.join("pg_hba.conf"), "x").unwrap();
        fs::write(data.join("postmaster.pid"), "1\n/d\n1700000000\n6543\n/so ck\n*\n  1 2\nready\n").unwrap();
        let psql = tools.join("psql");
        let heard = tools.join("heard");
        fs::write(&psql, format!("#!/bin/sh\nprintf '%s|' \"$@\" >'{}'\n", heard.display())).unwrap();
        fs::set_permissions(&psql, fs::Permissions::from_mode(0o755)).unwrap();
        let env = Env::from([("POSTGRES_USER".to_owned(), "o'wner".to_owned())]);
        let command = ["-D".to_owned(), data.display().to_string()];
        parse_hba(run(&read_hba(&command, &env)).borrow()).unwrap();
        let heard = fs::read_to_string(heard).unwrap();
        assert!(heard.contains("|-h|/so ck|-p|6543|-U|o'wner|-d|postgres|"), "{heard}");
    });
}

#[test]
fn what_is_no_file_is_not_read() {
    in_each_shell(|run, data, _| {
        let read = |name: &str| {
            let path = format!("hba_file={}", data.join(name).display());
            refusal(parse_hba(run(&read_in(data, &["-c", &path])).borrow()))
        };
        assert_eq!(read("missing"), Refusal::HbaMissing);
        fs::create_dir(data.join("folder")).unwrap();
        assert_eq!(read("folder"), Refusal::HbaUnreadable);
        symlink("loop", data.join("loop")).unwrap();
        assert_eq!(read("loop"), Refusal::HbaMissing);
        let fifo = data.join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(read("fifo"), Refusal::HbaUnreadable);
        fs::write(data.join("large"), vec![b'#'; HBA_LIMIT + 1]).unwrap();
        assert_eq!(read("large"), Refusal::HbaTooLarge);
    });
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_replaced_with_its_mode_and_nothing_is_left_behind() {
    in_each_shell(|run, data, _| {
        let file = data.join("pg_hba.conf");
        fs::write(data.join(".pg_hba.conf.dbssl.killed"), "left by a run that was killed").unwrap();
        for (mode, content) in [(0o600, CONTENT), (0o640, b""), (0o400, &vec![b'x'; 300_000])] {
            fs::write(&file, "before\n").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let before = fs::metadata(&file).unwrap();
            let hba = parse_hba(run(&read_in(data, &[])).borrow()).unwrap();
            parse_written(run(&write_hba(&hba, content)).borrow()).unwrap();
            let after = fs::metadata(&file).unwrap();
            assert_eq!(fs::read(&file).unwrap(), content);
            assert_eq!(after.mode() & 0o7777, mode);
            assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
            assert_ne!(after.ino(), before.ino(), "replaced, not overwritten");
            assert_eq!(names(data), ["pg_hba.conf"]);
            fs::remove_file(&file).unwrap();
        }
    });
}

#[test]
fn a_link_is_followed_to_the_real_file_and_stays_a_link() {
    in_each_shell(|run, data, _| {
        let real = data.join("real.conf");
        fs::write(&real, CONTENT).unwrap();
        symlink("real.conf", data.join("pg_hba.conf")).unwrap();
        let hba = parse_hba(run(&read_in(data, &[])).borrow()).unwrap();
        assert_eq!(Path::new(&hba.path), real.canonicalize().unwrap());
        parse_written(run(&write_hba(&hba, b"new")).borrow()).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(fs::symlink_metadata(data.join("pg_hba.conf")).unwrap().is_symlink());
    });
}

#[test]
fn a_file_that_has_changed_since_is_left_alone() {
    in_each_shell(|run, data, _| {
        let file = data.join("pg_hba.conf");
        fs::write(&file, CONTENT).unwrap();
        let hba = parse_hba(run(&read_in(data, &[])).borrow()).unwrap();
        fs::write(&file, "somebody else's").unwrap();
        let written = parse_written(run(&write_hba(&hba, b"ours")).borrow());
        assert_eq!(refusal(written), Refusal::HbaChanged);
        assert_eq!(fs::read(&file).unwrap(), b"somebody else's");
        fs::rename(&file, data.join("elsewhere")).unwrap();
        fs::write(data.join("elsewhere"), CONTENT).unwrap();
        symlink("elsewhere", &file).unwrap();
        assert_eq!(refusal(parse_written(run(&write_hba(&hba, b"ours")).borrow())), Refusal::HbaChanged);
        fs::remove_file(&file).unwrap();
        assert_eq!(refusal(parse_written(run(&write_hba(&hba, b"ours")).borrow())), Refusal::HbaMissing);
        assert_eq!(names(data), ["elsewhere"]);
    });
}

#[test]
fn bytes_that_were_lost_or_altered_on_the_way_are_not_written() {
    for shell in SHELLS {
        let folder = tempfile::tempdir().unwrap();
        let path = tools(shell, folder.path());
        let file = folder.path().join("pg_hba.conf");
        fs::write(&file, CONTENT).unwrap();
        let hba =
            parse_hba(run(shell, &path, Path::new("."), &read_in(folder.path(), &[])).borrow()).unwrap();
        for arrives in [&b""[..], b"half", b"whole contenT"] {
            let mut script = write_hba(&hba, b"whole content");
            script.stdin = None;
            let mut child = Command::new(shell[0])
                .args(&shell[1..])
                .args(&script.argv[1..])
                .env("PATH", &path)
                .stdin(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(arrives).unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(35));
            assert_eq!(fs::read(&file).unwrap(), CONTENT);
            assert_eq!(names(folder.path()), ["pg_hba.conf", "tools"]);
        }
    }
}

#[test]
fn a_reload_signals_only_a_process_that_is_the_server() {
    in_each_shell(|run, data, tools| {
        // A process that is called as the server is, and one that is not.
        let sleep = |name: &str| {
            let program = tools.with_file_name(name);
            if !program.exists() {
                fs::copy("/bin/sleep", &program).unwrap();
            }
            loop {
                // Whoever runs the tests may ignore SIGHUP, as nohup does, and children inherit that.
                let mut child = Command::new("env")
                    .arg("--default-signal=HUP")
                    .arg(&program)
                    .arg("3600")
                    .spawn()
                    .unwrap();
                let comm = format!("/proc/{}/comm", child.id());
                // Another thread's fork may hold the copy open for writing for a moment: then it is tried again.
                while child.try_wait().unwrap().is_none() {
                    if fs::read_to_string(&comm).is_ok_and(|now| now.trim_end() == name) {
                        return child;
                    }
                    std::thread::yield_now();
                }
            }
        };
        let (mut server, mut other) = (sleep("postgres"), sleep("mysqld"));
        // Only these two are there to be found, and not the machine's own servers.
        let proc = tools.with_file_name("proc");
        fs::create_dir(&proc).unwrap();
        let shown = |id: u32| symlink(format!("/proc/{id}"), proc.join(id.to_string())).unwrap();
        shown(other.id());
        let command = ["-D".to_owned(), data.display().to_string()];
        let mut script = reload(&command, &Env::new());
        assert_eq!(script.argv.pop().as_deref(), Some("/proc"));
        script.argv.push(proc.display().to_string());
        let reload = || parse_done(run(&script).borrow());
        assert_eq!(refusal(reload()), Refusal::ServerNotFound);
        for id in [format!("{}\n", other.id()), "-1\n".to_owned(), "x\n".to_owned(), String::new()] {
            fs::write(data.join("postmaster.pid"), id).unwrap();
            assert_eq!(refusal(reload()), Refusal::ServerNotFound);
        }
        shown(server.id());
        // Without a note, as behind an init whose data directory is not where we think.
        let mut noted = sleep("postgres");
        assert_eq!(reload(), Ok(()));
        shown(noted.id());
        fs::write(data.join("postmaster.pid"), format!("{}\n/data\n", noted.id())).unwrap();
        assert_eq!(reload(), Ok(()));
        noted.wait().unwrap();
        // SIGHUP, which ends a sleep.
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&server.wait().unwrap()), Some(1));
        assert_eq!(other.try_wait().unwrap(), None, "it was signalled although it is no PostgreSQL");
        other.kill().unwrap();
        other.wait().unwrap();
    });
}

#[test]
fn an_answer_that_does_not_add_up_is_no_answer() {
    let parse = |stdout: &[u8]| parse_hba(ExecOutput { exit_code: 0, stdout, stderr: b"" });
    assert!(parse(b"dbssl-hba 1 server 999 999 600 2 3\n/xabc").is_ok());
    for answer in [
        &b""[..],
        b"\n",
        b"dbssl-hba",
        b"dbssl-hba 1 server 999 999 600 2 3\n/xab",
        b"dbssl-hba 1 server 999 999 600 2 3\n/xabcd",
        b"dbssl-hba 1 server 999 999 600 2 99999999999999999999\n/xabc",
        b"dbssl-hba 1 server 999 999 600 18446744073709551615 1\n/xabc",
        b"dbssl-hba 1 server 999 999 600 0 3\nabc",
        b"dbssl-hba 1 server 999 999 999 2 3\n/xabc",
        b"dbssl-hba 1 server -1 999 600 2 3\n/xabc",
        b"dbssl-hba 1 guess 999 999 600 2 3\n/xabc",
        b"dbssl-hba 2 server 999 999 600 2 3\n/xabc",
        b"dbssl-hba 1 server 999 999 600 2 3 4\n/xabc",
        b"dbssl-hba 1 server 999 999 600 2 3\n\xff\xffabc",
        b"\xff\xff 1 server 999 999 600 2 3\n/xabc",
    ] {
        assert!(matches!(parse(answer), Err(ScriptError::Garbled(_))), "{}", answer.escape_ascii());
    }
    for answer in [&b""[..], b"dbssl-hba written", b"dbssl done\n", b"\xff"] {
        assert!(parse_written(ExecOutput { exit_code: 0, stdout: answer, stderr: b"" }).is_err());
    }
}

#[test]
fn what_a_script_said_is_one_harmless_line() {
    let stderr = ["\x1b[31mred\x1b[0m\nsecond\r\n\0", &"x".repeat(5000)].concat();
    let error = parse_hba(ExecOutput { exit_code: 127, stdout: b"", stderr: stderr.as_bytes() });
    let text = error.unwrap_err().to_string();
    assert!(text.starts_with("the container has no /bin/sh that can be run: [31mred [0m second x"), "{text}");
    assert!(text.len() < 400 && !text.contains(char::is_control));
    let error = parse_written(ExecOutput { exit_code: 137, stdout: b"", stderr: b"" });
    assert_eq!(error.unwrap_err().to_string(), "the script ended with exit code 137: ");
}

#[test]
fn checksums_are_those_of_posix() {
    // `printf … | cksum`
    assert_eq!(cksum(b""), "4294967295 0");
    assert_eq!(cksum(b"123456789"), "930766865 9");
    let zeros = vec![0; 70_000];
    assert_eq!(cksum(&zeros), format!("{} 70000", cksum_of_the_machine(&zeros)));
}

fn cksum_of_the_machine(bytes: &[u8]) -> String {
    let mut child = Command::new("cksum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}
