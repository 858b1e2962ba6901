//! The shells that containers have, to run scripts as they are run there.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use super::script::{ExecOutput, ExecScript};

/// The shells of Debian's images and of Alpine's. With busybox its own tools are used too, not the machine's.
pub const SHELLS: [&[&str]; 2] = [&["dash"], &["busybox", "sh"]];

pub struct Output {
    pub exit_code: i64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Output {
    pub fn borrow(&self) -> ExecOutput<'_> {
        ExecOutput { exit_code: self.exit_code, stdout: &self.stdout, stderr: &self.stderr }
    }
}

/// Folders of programs, the first one, `tools` in `folder`, shadowing the others.
pub fn tools(shell: &[&str], folder: &Path) -> String {
    let tools = folder.join("tools");
    fs::create_dir_all(&tools).unwrap();
    if shell[0] == "busybox" {
        let installed = Command::new("busybox").args(["--install", "-s"]).arg(&tools).status();
        assert!(installed.expect("busybox is needed for this test").success());
    }
    format!("{}:/usr/local/bin:/usr/bin:/bin", tools.display())
}

/// Runs `script` in `folder` with nothing in its environment but these tools.
pub fn run(shell: &[&str], tools: &str, folder: &Path, script: &ExecScript) -> Output {
    assert_eq!(script.argv[..2], ["/bin/sh", "-c"]);
    let mut child = Command::new(shell[0])
        .args(&shell[1..])
        .args(&script.argv[1..])
        .env_clear()
        .env("PATH", tools)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dash and busybox are needed for this test");
    // The stream stays open for as long as the script runs: it must not wait for its end.
    let mut stdin = child.stdin.take();
    if let (Some(stdin), Some(bytes)) = (&mut stdin, &script.stdin) {
        let _ = stdin.write_all(bytes.expose());
    }
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    Output {
        exit_code: output.status.code().unwrap_or(-1).into(),
        stdout: output.stdout,
        stderr: output.stderr,
    }
}
