//! As whom a client connects: what the container's environment and command say of user, password and database.
//!
//! These are what the images made the account with at their first start. Whoever changed the password since in the
//! database has another one. Files that a `…_FILE` variable names are not read.
//!
//! Sources: the images' pages on Docker Hub ("Environment Variables").

use crate::{
    engine::{
        Env,
        command::{last, long_options, server_arguments, variable},
        spec,
    },
    model::{Engine, Secret},
};

/// Not printable as a whole: it may hold a password.
#[derive(Clone)]
pub struct Account {
    pub user: Option<String>,
    pub password: Password,
    pub database: Option<String>,
    /// What could not be found out.
    pub notes: Vec<String>,
}

#[derive(Clone)]
pub enum Password {
    /// The server asks for none.
    None,
    Known(Secret),
    /// There is one, or may be; says why it is not known.
    Unknown(String),
}

/// What `env` and `command` say of the account that an application uses.
pub fn account(engine: Engine, env: &Env, command: &[String]) -> Account {
    let mut reader = Reader { env, notes: Vec::new() };
    let (user, password, database) = match engine {
        Engine::Postgres => reader.postgres(),
        Engine::Mysql => reader.mysql(&["MYSQL"]),
        Engine::Mariadb => reader.mysql(&["MARIADB", "MYSQL"]),
        Engine::Redis => reader.redis(command),
        Engine::Mongodb => reader.mongodb(),
    };
    Account { user, password, database, notes: reader.notes }
}

struct Reader<'a> {
    env: &'a Env,
    notes: Vec<String>,
}

type Found = (Option<String>, Password, Option<String>);

impl Reader<'_> {
    fn value(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A value that may stand in a file, which is not read: then `placeholder`, and a note.
    fn named(&mut self, name: &str, placeholder: &str) -> Option<String> {
        if let Some(value) = self.value(name) {
            return Some(value.to_owned());
        }
        self.value(&format!("{name}_FILE"))?;
        self.notes
            .push(format!("put the content of the file that {name}_FILE names in place of {placeholder}"));
        Some(placeholder.to_owned())
    }

    /// The first of these variables that is there, or its file.
    fn password(&self, names: &[String]) -> Option<Password> {
        names.iter().find_map(|name| {
            let file = format!("{name}_FILE");
            if let Some(value) = self.value(name) {
                Some(Password::Known(Secret::new(value.as_bytes().to_vec())))
            } else {
                self.value(&file).map(|_| {
                    Password::Unknown(format!("it is in the file that {file} names, which is not read"))
                })
            }
        })
    }

    fn postgres(&mut self) -> Found {
        let user = self.named("POSTGRES_USER", "USER").unwrap_or_else(|| "postgres".to_owned());
        let database = self.named("POSTGRES_DB", "DATABASE").unwrap_or_else(|| user.clone());
        let password = self.password(&["POSTGRES_PASSWORD".to_owned()]).unwrap_or_else(|| {
            if self.value("POSTGRES_HOST_AUTH_METHOD") == Some("trust") {
                Password::None
            } else {
                Password::Unknown("the container's environment has no POSTGRES_PASSWORD".to_owned())
            }
        });
        (Some(user), password, Some(database))
    }

    /// The application's user if there is one, else root. `prefixes` of the variables, the stronger first.
    fn mysql(&mut self, prefixes: &[&str]) -> Found {
        let names =
            |suffix: &str| prefixes.iter().map(|prefix| format!("{prefix}_{suffix}")).collect::<Vec<_>>();
        let database = names("DATABASE").iter().find_map(|name| self.named(name, "DATABASE"));
        let user = names("USER").iter().find_map(|name| self.named(name, "USER"));
        if user.is_some() {
            let password = self.password(&names("PASSWORD"));
            let unknown = || Password::Unknown("the container's environment does not hold it".to_owned());
            return (user, password.unwrap_or_else(unknown), database);
        }
        let password = self.password(&names("ROOT_PASSWORD")).unwrap_or_else(|| {
            let is_set = |suffix: &str| names(suffix).iter().any(|name| self.value(name).is_some());
            if is_set("RANDOM_ROOT_PASSWORD") {
                Password::Unknown("it was made up at the first start; docker logs shows it".to_owned())
            } else if is_set("ALLOW_EMPTY_PASSWORD") || is_set("ALLOW_EMPTY_ROOT_PASSWORD") {
                Password::None
            } else {
                Password::Unknown("the container's environment does not hold it".to_owned())
            }
        });
        (Some("root".to_owned()), password, database)
    }

    /// Redis itself reads its command only. A password that a configuration file sets is not seen.
    fn redis(&mut self, command: &[String]) -> Found {
        let arguments = server_arguments(spec(Engine::Redis).server_programs(), command);
        let options = long_options(&arguments);
        let written = last(&options, "requirepass").and_then(|option| option.value.clone());
        let password = match written {
            // A word of its own comes from no shell's string: its `$` means nothing.
            Some(written) if written.contains('$') && !command.contains(&written) => self.expanded(&written),
            Some(written) if written.is_empty() => Some(Password::None),
            Some(written) => Some(Password::Known(Secret::new(written.into_bytes()))),
            None => {
                let names = ["REDIS_PASSWORD", "VALKEY_PASSWORD", "KEYDB_PASSWORD"];
                self.password(&names.map(str::to_owned))
            }
        };
        let password = password.unwrap_or_else(|| {
            self.notes.push(
                "neither the command nor the environment sets a password: if a configuration file does, add it"
                    .to_owned(),
            );
            Password::None
        });
        // Whose password `requirepass` is; without one there is nobody to name.
        let user = (!matches!(password, Password::None)).then(|| "default".to_owned());
        (user, password, Some("0".to_owned()))
    }

    /// In a shell's string: `$NAME` or `${NAME}`, and nothing else.
    fn expanded(&self, written: &str) -> Option<Password> {
        variable(written).and_then(|name| self.password(&[name.to_owned()])).or_else(|| {
            Some(Password::Unknown("the shell in the container's command puts it together".to_owned()))
        })
    }

    fn mongodb(&mut self) -> Found {
        let user = self.named("MONGO_INITDB_ROOT_USERNAME", "USER");
        let database = self.value("MONGO_INITDB_DATABASE").map(str::to_owned);
        let password = match user {
            None => Password::None,
            Some(_) => self.password(&["MONGO_INITDB_ROOT_PASSWORD".to_owned()]).unwrap_or_else(|| {
                Password::Unknown("the container's environment has no MONGO_INITDB_ROOT_PASSWORD".to_owned())
            }),
        };
        (user, password, database)
    }
}
