//! Reading the commands of containers: where the server's own arguments begin, and whether more can be appended.

use std::borrow::Cow;

use super::{Demand, Launch, Obstacle, Shape};

const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "busybox", "zsh"];

/// The arguments that reach the server, as far as they can be told from outside: of a command that is a list, what
/// follows the program's name (or all flags, where an entrypoint adds the name); of a string for a shell, what
/// follows the name in it. A shell's string is not expanded.
pub(super) fn server_arguments<'a>(programs: &[&str], command: &'a [String]) -> Vec<Cow<'a, str>> {
    let mut words = split(command);
    let is_program = |word: &Word<'_>| word.is_one_of(programs);
    let starts_flag = |word: &Word<'_>| matches!(word, Word::Text(text) if text.starts_with('-'));
    // `gosu postgres postgres -c …` and `chown postgres /data && exec postgres -c …`: the name of the user is not
    // followed by a flag.
    let named = |next: &dyn Fn(Option<&Word<'_>>) -> bool| {
        (0..words.len()).find(|at| is_program(&words[*at]) && next(words.get(at + 1)))
    };
    let start = named(&|next| next.is_some_and(starts_flag))
        .or_else(|| named(&|next| !matches!(next, Some(Word::Text(_)))))
        .or_else(|| words.iter().rposition(is_program))
        .map(|at| at + 1)
        .or_else(|| words.iter().position(starts_flag));
    let Some(start) = start else { return Vec::new() };
    words
        .drain(start..)
        .map_while(|word| match word {
            Word::Text(text) => Some(text),
            Word::Break => None,
        })
        .collect()
}

/// The server's program, if the command names it. What follows an option may be the option's value, and is none.
pub(super) fn server_program<'a>(programs: &[&str], command: &'a [String]) -> Option<Cow<'a, str>> {
    let mut follows_option = false;
    split(command).into_iter().find_map(|word| {
        let is_program = !follows_option && word.is_one_of(programs);
        let Word::Text(text) = word else {
            follows_option = false;
            return None;
        };
        follows_option = text.starts_with('-') && text != "--";
        is_program.then_some(text)
    })
}

/// The words of a command, those of a string for a shell among them.
fn split(command: &[String]) -> Vec<Word<'_>> {
    let mut words = Vec::with_capacity(command.len());
    let mut rest = command;
    while let [word, more @ ..] = rest {
        rest = more;
        if is_shell(word)
            && let Some(at) = more.iter().position(|option| is_shell_command_option(option))
            && let Some(script) = more.get(at + 1)
        {
            words.push(Word::Break);
            shell_words(script, &mut words);
            words.push(Word::Break);
            rest = more.get(at + 2..).unwrap_or_default();
        } else {
            words.push(Word::Text(Cow::Borrowed(word.as_str())));
        }
    }
    words
}

/// Whether flags appended to `container`'s command reach the server.
pub(super) fn shape(programs: &[&str], image: Launch<'_>, container: Launch<'_>) -> Shape {
    match obstacle(programs, image, container) {
        Some(obstacle) => Shape::ByHand(obstacle),
        None => Shape::Appendable,
    }
}

fn obstacle(programs: &[&str], image: Launch<'_>, container: Launch<'_>) -> Option<Obstacle> {
    if container.entrypoint != image.entrypoint {
        // Not what follows: it may hold a password.
        return Some(match container.entrypoint.first().filter(|by| !by.is_empty()) {
            Some(by) => Obstacle::EntrypointReplaced { by: by.clone() },
            None => Obstacle::EntrypointCleared,
        });
    }
    let is_program = |word: &String| programs.contains(&file_name(word));
    // An entrypoint that names the server itself takes flags; one that is a shell's string takes none.
    if let Some(shell) = shell_string(container.entrypoint) {
        return Some(Obstacle::ShellString { shell: shell.to_owned() });
    }
    let mut words = container.command;
    if let [script, more @ ..] = words
        && !script.starts_with('-')
        && is_entrypoint_script(script)
    {
        words = more;
    }
    if let Some(shell) = shell_string(words) {
        return Some(Obstacle::ShellString { shell: shell.to_owned() });
    }
    let arguments = match words {
        [] if container.entrypoint.iter().any(is_program) => words,
        [] => return Some(Obstacle::EmptyCommand),
        [flag, ..] if flag.starts_with('-') && !container.entrypoint.is_empty() => words,
        [program, arguments @ ..] if is_program(program) => arguments,
        [program, ..] => return Some(Obstacle::UnknownProgram { program: program.clone() }),
    };
    if let Some(argument) = arguments.first()
        && matches!(
            argument.as_str(),
            "--help"
                | "-?"
                | "--version"
                | "-V"
                | "--single"
                | "--boot"
                | "--check"
                | "--describe-config"
                | "-C"
        )
    {
        return Some(Obstacle::NotAServer { argument: argument.clone() });
    }
    arguments.iter().any(|argument| argument == "--").then_some(Obstacle::EndOfFlags)
}

/// `command` without the flags that were appended to it for any demand.
pub(super) fn without_tails(command: &[String], flags: impl Fn(Demand) -> Vec<String>) -> Vec<String> {
    let tails: Vec<_> = Demand::all().map(flags).collect();
    let mut rest = command;
    while let Some(shorter) =
        tails.iter().filter_map(|tail| rest.strip_suffix(&**tail)).min_by_key(|rest| rest.len())
    {
        rest = shorter;
    }
    rest.to_vec()
}

/// Whether `command` ends with the flags that would be appended for a demand which treats some client differently.
pub(super) fn wired_for_another(
    command: &[String],
    demand: Demand,
    flags: impl Fn(Demand) -> Vec<String>,
) -> bool {
    let ends_with = |demand| command.ends_with(&flags(demand));
    !ends_with(demand) && Demand::all().any(|other| other.differs_from(demand) && ends_with(other))
}

/// The last component of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

pub(super) fn is_shell(word: &str) -> bool {
    SHELLS.contains(&file_name(word))
}

/// `-c`, also together with others: `-ec`, `-lc`, `-euxc`.
pub(super) fn is_shell_command_option(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|letters| {
        letters.ends_with('c') && letters.len() <= 8 && letters.bytes().all(|byte| byte.is_ascii_lowercase())
    })
}

/// The shell, if `words` hand it a string or a script.
fn shell_string(words: &[String]) -> Option<&str> {
    words.first().filter(|word| is_shell(word)).map(String::as_str)
}

fn is_entrypoint_script(word: &str) -> bool {
    matches!(file_name(word), "docker-entrypoint.sh" | "entrypoint.sh" | "docker-entrypoint")
}

#[derive(Debug)]
enum Word<'a> {
    Text(Cow<'a, str>),
    /// One command ends, the next one begins.
    Break,
}

impl Word<'_> {
    fn is_one_of(&self, programs: &[&str]) -> bool {
        matches!(self, Self::Text(text) if programs.contains(&file_name(text)))
    }
}

/// Splits a shell's string into its words. Quotes and backslashes are understood, expansions are left as they are.
fn shell_words(script: &str, words: &mut Vec<Word<'_>>) {
    let mut word: Option<String> = None;
    let mut characters = script.chars().peekable();
    let mut comment = false;
    while let Some(character) = characters.next() {
        if comment && character != '\n' {
            continue;
        }
        comment = false;
        match character {
            '\'' => {
                word.get_or_insert_default().extend(characters.by_ref().take_while(|inner| *inner != '\''));
            }
            '"' => {
                let word = word.get_or_insert_default();
                while let Some(inner) = characters.next() {
                    match inner {
                        '"' => break,
                        '\\' if matches!(characters.peek(), Some('"' | '\\' | '$' | '`' | '\n')) => {
                            word.extend(characters.next().filter(|escaped| *escaped != '\n'));
                        }
                        _ => word.push(inner),
                    }
                }
            }
            '\\' => match characters.next() {
                Some('\n') | None => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
            },
            '#' if word.is_none() => comment = true,
            ';' | '&' | '|' | '\n' | '(' | ')' => {
                words.extend(word.take().map(|text| Word::Text(Cow::Owned(text))));
                words.push(Word::Break);
            }
            _ if character.is_ascii_whitespace() => {
                words.extend(word.take().map(|text| Word::Text(Cow::Owned(text))));
            }
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word.map(|text| Word::Text(Cow::Owned(text))));
}

/// Long options as MySQL, MariaDB, Redis and MongoDB take them: `--name=value`, `--name value`, `--name`. The names
/// are given with dashes, in lower case. A value that begins with `--` is taken for the next option.
pub(super) fn long_options(arguments: &[Cow<'_, str>]) -> Vec<LongOption> {
    let mut options = Vec::new();
    let mut rest = arguments;
    while let [argument, more @ ..] = rest {
        rest = more;
        let Some(text) = argument.strip_prefix("--").filter(|text| !text.is_empty()) else { continue };
        let mut apart = false;
        let (name, value, written) = if let Some((name, value)) = text.split_once('=') {
            (name, Some(value), argument.to_string())
        } else if let [value, more @ ..] = rest
            && !value.starts_with("--")
        {
            rest = more;
            apart = true;
            (text, Some(value.as_ref()), format!("{argument} {value}"))
        } else {
            (text, None, argument.to_string())
        };
        options.push(LongOption {
            name: name.to_ascii_lowercase().replace('_', "-"),
            value: value.map(str::to_owned),
            apart,
            written,
        });
    }
    options
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LongOption {
    pub name: String,
    pub value: Option<String>,
    /// The value is a word of its own.
    pub apart: bool,
    /// As it stands in the command, for people.
    pub written: String,
}

/// Those of `options` that name another path than ours, as they are written; `paths` by their options.
pub(super) fn elsewhere<'a>(
    options: &[LongOption],
    paths: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<String> {
    let names_another =
        |(name, path)| last(options, name).filter(|option| option.value.as_deref() != Some(path));
    paths.into_iter().filter_map(names_another).map(|option| option.written.clone()).collect()
}

/// The variable of which a word of a shell's script is the whole value: `$NAME` or `${NAME}`.
pub(super) fn variable(word: &str) -> Option<&str> {
    let name = word.strip_prefix('$')?;
    Some(name.strip_prefix('{').and_then(|name| name.strip_suffix('}')).unwrap_or(name))
}

/// One word of a POSIX shell.
pub fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:=@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The last of `options` that has this name: the one that counts.
pub(super) fn last<'a>(options: &'a [LongOption], name: &str) -> Option<&'a LongOption> {
    options.iter().rev().find(|option| option.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn arguments(words: &[&str]) -> Vec<String> {
        server_arguments(&["postgres"], &list(words)).into_iter().map(Cow::into_owned).collect()
    }

    #[test]
    fn the_servers_arguments_are_found_behind_its_name() {
        let flags = ["-c", "ssl=on"];
        for prefix in [
            &["postgres"][..],
            &["docker-entrypoint.sh", "postgres"],
            &["docker-entrypoint.sh"],
            &["/usr/lib/postgresql/17/bin/postgres"],
            &["gosu", "postgres", "postgres"],
            &["tini", "--", "docker-entrypoint.sh", "postgres"],
            &[],
        ] {
            assert_eq!(arguments(&[prefix, &flags].concat()), flags, "{prefix:?}");
        }
        assert!(arguments(&["docker-entrypoint.sh", "postgres"]).is_empty());
        assert!(arguments(&[]).is_empty());
    }

    #[test]
    fn a_program_is_no_value_of_an_option() {
        for (words, program) in [
            (&["docker-entrypoint.sh", "/bin/b", "-x"][..], Some("/bin/b")),
            (&["a", "--name", "b"], Some("a")),
            (&["--name", "b", "--more", "a"], None),
            (&["tini", "-g", "--", "b"], Some("b")),
            (&["sh", "-c", "echo -h a; exec b --name a"], Some("b")),
            (&["sh", "-c", "x -f", "b"], Some("b")),
            (&[], None),
        ] {
            assert_eq!(server_program(&["a", "b"], &list(words)).as_deref(), program, "{words:?}");
        }
    }

    #[test]
    fn a_shells_string_is_read_too_because_flags_may_have_been_added_there_by_hand() {
        for script in [
            "exec docker-entrypoint.sh postgres -c ssl=on",
            "chown postgres /x && exec postgres -c 'ssl=on'",
            "chown postgres /x\npostgres -c \"ssl=on\" | tee /log",
            "postgres \\\n  -c s\\sl=on # -c ssl=off",
            "(postgres -c ssl=on); postgres_exporter -c x",
        ] {
            for shell in
                [&["sh", "-c"][..], &["/bin/bash", "-euc"], &["docker-entrypoint.sh", "bash", "-e", "-c"]]
            {
                assert_eq!(arguments(&[shell, &[script]].concat()), ["-c", "ssl=on"], "{script}");
            }
        }
    }

    #[test]
    fn unfinished_quotes_and_strange_scripts_end_quietly() {
        for script in ["'", "\"", "\\", "postgres '", "postgres \"-c\\", "#", "postgres $(x", ""] {
            let _ = arguments(&["sh", "-c", script]);
        }
        let _ = arguments(&["sh", "-c"]);
        let _ = arguments(&["sh"]);
    }

    fn shape_of(image: &[&str], entrypoint: &[&str], command: &[&str]) -> Shape {
        let (image, entrypoint, command) = (list(image), list(entrypoint), list(command));
        shape(
            &["postgres"],
            Launch { entrypoint: &image, command: &[] },
            Launch { entrypoint: &entrypoint, command: &command },
        )
    }

    #[test]
    fn flags_are_appended_only_where_they_reach_the_server() {
        let official = &["docker-entrypoint.sh"][..];
        for command in [
            &["postgres"][..],
            &["-c", "max_connections=20"],
            &["postgres", "-c", "max_connections=20"],
            &["/usr/lib/postgresql/15/bin/postgres", "-D", "/data"],
            &["docker-entrypoint.sh", "postgres"],
            &["/usr/local/bin/docker-entrypoint.sh", "-p", "1"],
        ] {
            assert_eq!(shape_of(official, official, command), Shape::Appendable, "{command:?}");
        }
        assert_eq!(shape_of(&["postgres"], &["postgres"], &[]), Shape::Appendable);
        assert_eq!(shape_of(&[], &[], &["postgres"]), Shape::Appendable);
        let refused = |image: &[&str], entrypoint: &[&str], command: &[&str], text: &str| match shape_of(
            image, entrypoint, command,
        ) {
            Shape::ByHand(obstacle) => assert_eq!(obstacle.to_string(), text),
            Shape::Appendable => panic!("{entrypoint:?} {command:?} should be refused"),
        };
        refused(
            official,
            official,
            &["sh", "-c", "postgres"],
            "the command is a string for the shell \"sh\"",
        );
        refused(
            official,
            official,
            &["/bin/bash", "run.sh"],
            "the command is a string for the shell \"/bin/bash\"",
        );
        refused(official, &["/bin/sh", "-c"], &["x"], "the image's entrypoint is replaced by \"/bin/sh\"");
        refused(official, &[], &["postgres"], "the image's entrypoint is cleared");
        refused(official, &[""], &["postgres"], "the image's entrypoint is cleared");
        refused(&["sh", "-c", "x"], &["sh", "-c", "x"], &[], "the command is a string for the shell \"sh\"");
        refused(official, official, &["/run.sh"], "the command starts \"/run.sh\", which is not the server");
        refused(official, official, &[], "the command is empty");
        refused(&[], &[], &["-c", "ssl=on"], "the command starts \"-c\", which is not the server");
        refused(official, official, &["postgres", "--single"], "\"--single\" does not start a server");
        refused(
            official,
            official,
            &["postgres", "--", "x"],
            "the command holds \"--\", behind which flags are not read",
        );
    }

    #[test]
    fn long_options_are_read_in_each_spelling() {
        let arguments = list(&["--ssl_cert=/a", "--SSL-Key", "/b", "--flag", "--port", "0", "x", "--"]);
        let arguments: Vec<Cow<'_, str>> =
            arguments.iter().map(|text| Cow::Borrowed(text.as_str())).collect();
        let options = long_options(&arguments);
        let read: Vec<_> =
            options.iter().map(|option| (option.name.as_str(), option.value.as_deref())).collect();
        assert_eq!(
            read,
            [("ssl-cert", Some("/a")), ("ssl-key", Some("/b")), ("flag", None), ("port", Some("0"))]
        );
    }

    #[test]
    fn a_shell_gets_one_word_that_it_does_not_expand() {
        assert_eq!(shell_word("--host=db"), "--host=db");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("it's $HOME `x` \\"), r"'it'\''s $HOME `x` \'");
    }
}
