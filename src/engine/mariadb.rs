//! MariaDB. Known, not supported yet. It takes MySQL's TLS options; its program and its reload differ.
//!
//! Source: MariaDB's documentation, "Securing Connections for Client and Server".

use super::{Env, File, Preamble, SEPARATE_FILES, Spec, Wired, mysql, volatile_paths};
use crate::model::{Engine, Mode};

const PROGRAMS: &[&str] = &["mariadbd", "mysqld"];

pub struct Mariadb;

impl Spec for Mariadb {
    fn engine(&self) -> Engine {
        Engine::Mariadb
    }

    fn supported(&self) -> bool {
        false
    }

    fn certificate_directory(&self) -> &'static str {
        mysql::DIRECTORY
    }

    fn files(&self) -> &'static [File] {
        SEPARATE_FILES
    }

    fn flags(&self, mode: Mode) -> Vec<String> {
        mysql::flags(mode)
    }

    fn wired(&self, command: &[String], mode: Mode) -> Wired {
        mysql::wired(&mysql::options(PROGRAMS, command), mode)
    }

    fn server_programs(&self) -> &'static [&'static str] {
        PROGRAMS
    }

    fn port(&self, command: &[String], _env: &Env) -> u16 {
        mysql::port(&mysql::options(PROGRAMS, command))
    }

    fn data_directory(&self, command: &[String], _env: &Env) -> String {
        mysql::data_directory(&mysql::options(PROGRAMS, command))
    }

    fn server_users(&self) -> &'static [&'static str] {
        &["mysql"]
    }

    fn volatile_paths(&self) -> &'static [&'static str] {
        volatile_paths!("/root/.mysql_history", "/root/.mariadb_history")
    }

    fn preamble(&self) -> Preamble {
        Preamble::MysqlGreeting
    }
}
