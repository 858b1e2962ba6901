//! The scripts of orders, run by the shells that containers have, with a client that only notes what it is given.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{
    Env, ExecScript, Order, Spec,
    mariadb::Mariadb,
    mysql::Mysql,
    redis::Redis,
    shells::{SHELLS, run, tools},
};

/// Runs what `script` makes, given a folder, in each shell; each time answers what the client noted.
fn noted(client: &str, note: &str, script: impl Fn(&Path) -> ExecScript) -> Vec<String> {
    let in_shell = |shell: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let noted = folder.path().join("noted");
        let path = tools(shell, folder.path());
        let program = folder.path().join("tools").join(client);
        fs::write(&program, format!("#!/bin/sh\n{{ {note}; }} >{}\necho OK\n", noted.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let output = run(shell, &path, folder.path(), &script(folder.path()));
        assert_eq!(output.exit_code, 0, "{shell:?}");
        fs::read_to_string(noted).unwrap()
    };
    SHELLS.into_iter().map(in_shell).collect()
}

#[test]
fn the_password_of_a_configuration_file_loses_only_the_quotes_around_it() {
    for (file, password) in [
        ("requirepass plain\n", "plain"),
        ("requirepass old\n  RequirePass\t\"new one\" \r\n# requirepass no\n", "new one"),
        ("REQUIREPASS 'a\"b'\nsave x\n", "a\"b"),
        ("requirepass it's\n", "it's"),
        ("requirepass a'b\"c", "a'b\"c"),
        ("requirepass \"'x'\"\n", "'x'"),
        ("masterauth x\n", ""),
    ] {
        let noted = noted("redis-cli", "printf %s \"$REDISCLI_AUTH\"", |folder| {
            fs::write(folder.join("redis.conf"), file).unwrap();
            Redis.order(Order::Reload, &["redis.conf".to_owned()], &Env::new()).unwrap()
        });
        assert_eq!(noted, [password, password], "{file:?}");
    }
}

#[test]
fn the_client_asks_at_the_socket_that_the_command_names() {
    for (command, socket) in [
        ("mysqld", ""),
        ("mysqld --socket=/run/own.sock", "--socket=/run/own.sock"),
        ("mysqld --socket=/a --socket /b", "--socket=/b"),
        ("mysqld --loose-socket=own.sock", "--socket=/var/lib/mysql/own.sock"),
        ("mysqld --datadir=/data --socket=own.sock", "--socket=/data/own.sock"),
        ("mysqld --socket=$S", ""),
        ("mysqld --socket=", ""),
    ] {
        let command: Vec<_> = command.split(' ').map(str::to_owned).collect();
        for spec in [&Mysql as &dyn Spec, &Mariadb] {
            let note = "for word; do case $word in --socket=*) printf %s \"$word\" ;; esac; done";
            let noted = noted("mariadb", note, |_| spec.order(Order::Reload, &command, &Env::new()).unwrap());
            assert_eq!(noted, [socket, socket], "{command:?}");
        }
    }
}
