//! Health checks as people write them.

use super::*;

const REDIS: Client<'_> = Client {
    programs: &["redis-cli", "valkey-cli"],
    options: &["--tls", "--cacert", "/ca"],
    ports: Some((6379, 6380)),
    done_by: &["--tls", "-s"],
    beyond_us: &["-u"],
};
const MONGO: Client<'_> = Client {
    programs: &["mongosh", "mongo"],
    options: &["--tls", "--tlsCAFile", "/ca"],
    ports: None,
    done_by: &["--tls"],
    beyond_us: &[],
};

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_client_that_is_called_by_words_gets_the_options_behind_its_name() {
    for (before, after) in [
        (
            &["CMD", "redis-cli", "ping"][..],
            &["CMD", "redis-cli", "--tls", "--cacert", "/ca", "-p", "6380", "ping"][..],
        ),
        (
            &["CMD", "/usr/bin/valkey-cli", "-p", "6379", "-a", "x", "ping"],
            &["CMD", "/usr/bin/valkey-cli", "--tls", "--cacert", "/ca", "-p", "6380", "-a", "x", "ping"],
        ),
        (
            &["CMD", "sh", "-c", "redis-cli ping | grep PONG"],
            &["CMD", "sh", "-c", "redis-cli --tls --cacert /ca -p 6380 ping | grep PONG"],
        ),
    ] {
        assert_eq!(REDIS.adapt(&list(before)), Check::Adapted(list(after)), "{before:?}");
    }
    let adapted = ["CMD", "mongosh", "--tls", "--tlsCAFile", "/ca", "--eval", "db.runCommand('ping')"];
    assert_eq!(
        MONGO.adapt(&list(&["CMD", "mongosh", "--eval", "db.runCommand('ping')"])),
        Check::Adapted(list(&adapted))
    );
}

#[test]
fn a_client_in_a_script_gets_them_wherever_it_stands() {
    for (before, after) in [
        ("redis-cli ping", "redis-cli --tls --cacert /ca -p 6380 ping"),
        ("redis-cli", "redis-cli --tls --cacert /ca -p 6380"),
        (
            "redis-cli -a \"$REDIS_PASSWORD\" ping | grep -q PONG || exit 1",
            "redis-cli --tls --cacert /ca -p 6380 -a \"$REDIS_PASSWORD\" ping | grep -q PONG || exit 1",
        ),
        (
            "[ \"$(redis-cli -p 6379 ping)\" = PONG ] && redis-cli info",
            "[ \"$(redis-cli --tls --cacert /ca -p 6380 ping)\" = PONG ] && redis-cli --tls --cacert /ca -p 6380 info",
        ),
        ("sh -c 'valkey-cli ping'", "sh -c 'valkey-cli --tls --cacert /ca -p 6380 ping'"),
    ] {
        let adapted = Check::Adapted(list(&["CMD-SHELL", after]));
        assert_eq!(REDIS.adapt(&list(&["CMD-SHELL", before])), adapted, "{before}");
    }
    assert_eq!(
        MONGO.adapt(&list(&[
            "CMD-SHELL",
            "echo 'db.runCommand(\"ping\").ok' | mongosh localhost:27017/test --quiet"
        ])),
        Check::Adapted(list(&[
            "CMD-SHELL",
            "echo 'db.runCommand(\"ping\").ok' | mongosh --tls --tlsCAFile /ca localhost:27017/test --quiet"
        ]))
    );
}

#[test]
fn what_works_stays_and_so_does_what_is_beyond_us() {
    for words in [
        &[][..],
        &["NONE"],
        &["CMD", "redis-cli", "--tls", "--cacert", "/mine", "-p", "6380", "ping"],
        &["CMD", "redis-cli", "-s", "/run/redis.sock", "ping"],
        &["CMD-SHELL", "redis-cli --tls --insecure ping"],
        &["CMD-SHELL", "redis-cli --tls -a \"$(cat /pw)\" ping"],
    ] {
        assert_eq!(REDIS.adapt(&list(words)), Check::Works, "{words:?}");
    }
    for words in [
        &["CMD", "/healthcheck.sh"][..],
        &["CMD-SHELL", "nc -z localhost 6379"],
        &["CMD-SHELL", "my-redis-cli ping"],
        &["CMD-SHELL", "redis-cli-wrapper ping"],
        &["CMD-SHELL", "redis-cli -u redis://localhost:6379 ping"],
        &["CMD-SHELL", "redis-cli -p 7000 ping"],
        &["CMD-SHELL", "redis-cli -p $PORT ping"],
        &["STRANGE", "redis-cli"],
    ] {
        assert!(matches!(REDIS.adapt(&list(words)), Check::Unknown(_)), "{words:?}");
    }
}

fn script(client: Client<'_>, script: &str) -> Check {
    client.adapt(&list(&["CMD-SHELL", script]))
}

#[test]
fn a_client_s_command_ends_where_the_shell_ends_it() {
    const OPTIONS: &str = "--tls --cacert /ca";
    for (before, after) in [
        ("redis-cli -a 'x;y' -p 6379 ping", "redis-cli OPTIONS -a 'x;y' -p 6380 ping"),
        (
            "redis-cli -a \"a b&c\" -p  6379 ping|grep PONG",
            "redis-cli OPTIONS -a \"a b&c\" -p  6380 ping|grep PONG",
        ),
        ("redis-cli -a x\\;y -p '6379' ping", "redis-cli OPTIONS -a x\\;y -p 6380 ping"),
        ("redis-cli 2>&1 -p 6379 ping", "redis-cli OPTIONS 2>&1 -p 6380 ping"),
        // The key is called so.
        ("redis-cli -p 6379 get '-p 6379'", "redis-cli OPTIONS -p 6380 get '-p 6379'"),
        ("x=`redis-cli ping`; [ $x = PONG ]", "x=`redis-cli OPTIONS -p 6380 ping`; [ $x = PONG ]"),
        (
            "[ \"$(redis-cli -a \"$PW\" -p 6379 ping)\" = PONG ]",
            "[ \"$(redis-cli OPTIONS -a \"$PW\" -p 6380 ping)\" = PONG ]",
        ),
        ("sh -c \"redis-cli -p 6379 ping\"", "sh -c \"redis-cli OPTIONS -p 6380 ping\""),
    ] {
        let after = after.replace("OPTIONS", OPTIONS);
        assert_eq!(script(REDIS, before), Check::Adapted(list(&["CMD-SHELL", &after])), "{before}");
    }
    for unknown in [
        "redis-cli -a \"$(cat /run/secrets/pw)\" -p 6379 ping",
        "redis-cli -a `cat /run/secrets/pw` ping",
        "redis-cli -p6379 ping",
        "redis-cli -p \"$PORT\" ping",
        "redis-cli -a 'x ping",
        "sh -c \"redis-cli -a \\\"$PW\\\" ping\"",
        "sh -c 'redis-cli -a '\\''x'\\'' ping'",
        "echo `echo \\`redis-cli ping\\``",
    ] {
        assert!(matches!(script(REDIS, unknown), Check::Unknown(_)), "{unknown}");
    }
    let words = ["CMD", "redis-cli", "-p6379", "ping"];
    assert!(matches!(REDIS.adapt(&list(&words)), Check::Unknown(_)));
    // Brackets within quotes are the client's own.
    let eval = "mongosh --quiet --eval \"db.adminCommand('ping').ok\" || exit 1";
    let adapted = eval.replace("mongosh", "mongosh --tls --tlsCAFile /ca");
    assert_eq!(script(MONGO, eval), Check::Adapted(list(&["CMD-SHELL", &adapted])));
}

#[test]
fn a_program_counts_where_a_command_begins_and_nowhere_else() {
    let options = "--tls --tlsCAFile /ca";
    for (before, after) in [
        ("mongosh --host mongo --eval 1", format!("mongosh {options} --host mongo --eval 1")),
        ("mongosh 'mongo' mongo", format!("mongosh {options} 'mongo' mongo")),
        ("timeout -s KILL 5 mongo", format!("timeout -s KILL 5 mongo {options}")),
        ("A=mongo exec mongo", format!("A=mongo exec mongo {options}")),
        ("if ! mongo; then exit 1; fi", format!("if ! mongo {options}; then exit 1; fi")),
        ("(mongo)", format!("(mongo {options})")),
        ("true && { gosu mongo mongo; }", format!("true && {{ gosu mongo mongo {options}; }}")),
        ("su mongo -c 'mongo --quiet'", format!("su mongo -c 'mongo {options} --quiet'")),
        ("# mongo 'x\nmongo", format!("# mongo 'x\nmongo {options}")),
    ] {
        assert_eq!(script(MONGO, before), Check::Adapted(list(&["CMD-SHELL", &after])), "{before}");
    }
    for unknown in
        ["nc -z mongo 27017", "nc -z \"mongo\" 27017", "ping mongo; echo 'mongo'", "--host mongo", ""]
    {
        assert!(matches!(script(MONGO, unknown), Check::Unknown(_)), "{unknown}");
    }
    assert!(matches!(MONGO.adapt(&list(&["CMD", "nc", "mongo", "1"])), Check::Unknown(_)));
    let words = ["CMD", "timeout", "5", "mongo"];
    let adapted = ["CMD", "timeout", "5", "mongo", "--tls", "--tlsCAFile", "/ca"];
    assert_eq!(MONGO.adapt(&list(&words)), Check::Adapted(list(&adapted)));
}

#[test]
fn adapted_once_it_works() {
    for words in [&["CMD", "redis-cli", "ping"][..], &["CMD-SHELL", "redis-cli ping || exit 1"]] {
        let Check::Adapted(adapted) = REDIS.adapt(&list(words)) else { panic!("{words:?}") };
        assert_eq!(REDIS.adapt(&adapted), Check::Works);
    }
}

/// On a stack that is smaller than a worker's.
#[test]
fn a_script_in_a_script_ends_quietly_however_deep() {
    let deep = |unit: &str| unit.repeat(LONGEST_SCRIPT / unit.len());
    let adapt = move || {
        for unit in ["$(", "`", "(", "\"$(", "'", "sh -c \"", "redis-cli $(", "${"] {
            for script in [deep(unit), deep(unit) + unit] {
                let _ = REDIS.adapt(&list(&["CMD-SHELL", &script]));
            }
        }
        REDIS.adapt(&list(&["CMD-SHELL", &"redis-cli ping;".repeat(100)]))
    };
    let small = std::thread::Builder::new().stack_size(1 << 20).spawn(adapt).unwrap();
    assert!(matches!(small.join().unwrap(), Check::Unknown(why) if why.contains("kilobyte")));
}
