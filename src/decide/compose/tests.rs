use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn fragment<'a>(command: &'a [String], labels: &'a BTreeMap<String, String>) -> Fragment<'a> {
    Fragment {
        container: "db",
        service: Some("db"),
        mode: Mode::VerifyFull,
        by_rules: false,
        source: Path::new("/var/lib/dbssl/databases/db"),
        target: "/etc/redis/certs",
        selinux: false,
        command,
        healthcheck: None,
        labels,
        shortfall: None,
    }
}

#[test]
fn values_survive_yaml_and_the_interpolation_of_compose() {
    for (text, in_file) in [
        ("", r#""""#),
        ("ssl=on", r#""ssl=on""#),
        ("$HOME and ${X}", r#""$$HOME and $${X}""#),
        (r#"a "b" \c"#, r#""a \"b\" \\c""#),
        ("two\nlines\tand a tab", r#""two\nlines\tand a tab""#),
        ("größe 数", r#""größe 数""#),
        ("\u{0}\u{7f}\u{85}\u{2028}\u{feff}", r#""\U00000000\U0000007f\U00000085\U00002028\U0000feff""#),
        ("😀", r#""\U0001f600""#),
        ("- # : {", r#""- # : {""#),
    ] {
        assert_eq!(quoted(text), in_file);
    }
    assert_eq!(list(&words(&["a", "b c"])), r#"["a", "b c"]"#);
    assert_eq!(list(&[]), "[]");
}

#[test]
fn a_key_that_could_be_something_else_is_quoted() {
    for plain in ["db", "dbssl.enable", "my_db-1"] {
        assert_eq!(key(plain), plain);
    }
    for strange in ["1.5", "on", "No", "null", "a b", "a:b", "ä", ""] {
        assert_eq!(key(strange), format!("\"{strange}\""), "{strange}");
    }
    assert_eq!(key("a$b"), "\"a$b\"");
}

#[test]
fn a_comment_never_ends_before_its_line() {
    let none = BTreeMap::new();
    let command = words(&["redis-server", "--x\nservices: {}"]);
    let sly = "why\nservices: {}\r\u{85}\u{2028}x";
    let sly = Fragment { service: None, shortfall: Some(sly), ..fragment(&command, &none) };
    let text = sly.to_string();
    let body = text.find("services:\n").unwrap();
    assert!(text[..body].lines().all(|line| line.starts_with('#')), "{text}");
    assert!(by_hand(&sly, "a\nb\rc").lines().all(|line| line.starts_with('#')));
}

#[test]
fn labels_that_are_nobody_s_wish_are_left_out() {
    let labels = [
        ("dbssl.enable", "true"),
        ("dbssl.names", "a.example,b.example"),
        ("dbssl.operation", "7"),
        ("dbssl.image", "redis:8"),
        ("com.docker.compose.service", "db"),
    ];
    let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).into();
    let command = words(&["redis-server"]);
    let text = fragment(&command, &labels).to_string();
    let kept = "    labels:\n      dbssl.enable: \"true\"\n      dbssl.names: \"a.example,b.example\"\n";
    assert!(text.ends_with(kept), "{text}");
    assert!(!fragment(&command, &BTreeMap::new()).to_string().contains("labels"));
}

#[test]
fn what_looks_like_a_password_is_named_without_its_value() {
    let none = BTreeMap::new();
    let value_of = |options: &[&str]| -> Vec<String> {
        options.iter().map(|option| format!("the value of {option}")).collect()
    };
    let url = || vec!["a part of a URL".to_owned()];
    for (command, found) in [
        (&["redis-server", "--requirepass", "x"][..], value_of(&["--requirepass"])),
        (
            &["redis-server", "--requirepass=x", "--masterauth", "y"],
            value_of(&["--requirepass", "--masterauth"]),
        ),
        (&["sh", "-c", "redis-server --requirepass x --requirepass y"], value_of(&["--requirepass"])),
        (&["redis-server", "--requirepass", "$X"], vec![]),
        (&["redis-server", "--requirepass", "\"$X\""], vec![]),
        (&["redis-server", "--requirepass"], vec![]),
        (&["redis-server", "--requirepass", "--port", "0"], vec![]),
        (&["mysqld", "--ssl-key=/etc/mysql/certs/server.key"], vec![]),
        (&["postgres", "-c", "ssl_key_file=/var/lib/postgresql/certs/server.key"], vec![]),
        (&["postgres", "-p", "5433", "-p5433"], vec![]),
        (&["x", "redis://:hunter2@db"], url()),
        (&["x", "--at=mongodb://root:hunter2@db/admin"], url()),
        (&["x", "redis://$USER:$PW@db", "http://db:80/a@b", "mysql://root@db", "x@y:z"], vec![]),
    ] {
        assert_eq!(passwords(&fragment(&words(command), &none)), found, "{command:?}");
    }
    let command = words(&["redis-server"]);
    for (check, found) in [
        (&["CMD", "redis-cli", "-a", "x", "ping"][..], value_of(&["-a"])),
        (&["CMD", "redis-cli", "-ahunter2", "-p", "6380", "ping"], value_of(&["-a"])),
        (&["CMD-SHELL", "redis-cli -a \"$PW\" -p6380 ping"], vec![]),
        (&["CMD-SHELL", "mariadb -uroot -phunter2 -e 'SELECT 1'"], value_of(&["-p"])),
        (&["CMD-SHELL", "mariadb '-phunter2' -e 'SELECT 1'"], value_of(&["-p"])),
        (&["CMD-SHELL", "mariadb -p\"$PW\" -P3306; mariadb -p`cat /pw`; mariadb -p -e x"], vec![]),
        (&["CMD", "redis-cli", "-u", "rediss://default:hunter2@db:6380", "ping"], url()),
    ] {
        let check = words(check);
        let checked = Fragment { healthcheck: Some(&check), ..fragment(&command, &none) };
        assert_eq!(passwords(&checked), found, "{check:?}");
    }
}

#[test]
fn words_that_do_not_fit_into_a_comment_are_not_shown_as_others() {
    let none = BTreeMap::new();
    let (command, check) = (words(&["redis-server", "--x", "a\nb"]), words(&["CMD-SHELL", "a\nb"]));
    let run = Fragment { service: None, ..fragment(&command, &none) };
    let of = |fragment: &Fragment<'_>, after: &str| {
        let text = fragment.to_string();
        text.lines().skip_while(|line| !line.ends_with(after)).nth(1).unwrap().to_owned()
    };
    let plain = "#   --mount type=bind,source=/var/lib/dbssl/databases/db,target=/etc/redis/certs,readonly";
    assert_eq!(of(&run, "in front of the image:"), plain);
    assert!(of(&run, "behind the image:").starts_with("#   NOT SHOWN: a word has a line break"));
    let checked = Fragment { healthcheck: Some(&check), ..run };
    assert!(of(&checked, "in front of the image:").starts_with("#   NOT SHOWN: a word has a line break"));
    // Where they are to be found.
    assert!(checked.to_string().contains(r#"command: ["redis-server", "--x", "a\nb"]"#));
}

#[test]
fn a_shell_reads_back_each_word() {
    assert_eq!(shell_words(&words(&["-c", "a b", "", "it's", "$x"])), r"-c 'a b' '' 'it'\''s' '$x'");
}

#[test]
fn on_selinux_the_directory_is_relabelled() {
    let none = BTreeMap::new();
    let command = words(&["redis-server"]);
    let text = Fragment { selinux: true, service: None, ..fragment(&command, &none) }.to_string();
    assert!(text.contains("      - \"/var/lib/dbssl/databases/db:/etc/redis/certs:ro,z\"\n"), "{text}");
    assert!(text.contains("--volume /var/lib/dbssl/databases/db:/etc/redis/certs:ro,z"), "{text}");
}
