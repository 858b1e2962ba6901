//! What is in a container: commands run in it, its files, its own words.

use std::time::Duration;

use async_trait::async_trait;
use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
    query_parameters::{
        ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, LogsOptionsBuilder,
        UploadToContainerOptionsBuilder,
    },
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{
    DockerError,
    connection::{CALL, Connection, bounded, bounded_by},
    error::{failed, garbled},
    raw,
};
use crate::model::ContainerId;

/// What a command in a container left behind. Output beyond the limit is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    pub code: i64,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A command to run in a container.
#[derive(Clone, Debug)]
pub struct Exec<'a> {
    /// `uid`, `uid:gid` or a name; empty: the container's own user.
    pub user: &'a str,
    pub argv: &'a [String],
    pub stdin: Option<&'a [u8]>,
    /// Bytes kept of each stream.
    pub limit: usize,
    pub deadline: Duration,
}

/// What a path in a container leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File {
        length: u64,
    },
    Folder,
    Link {
        /// Where it leads in the end, from the container's root.
        target: String,
    },
    /// A device, a socket, a pipe.
    Other,
}

/// What is in a container.
#[async_trait]
pub trait Inside {
    /// The arguments of a command that `docker exec` runs in a container at this moment, if it still runs.
    async fn running_exec(&self, exec: &str) -> Result<Option<Vec<String>>, DockerError>;

    /// Runs a command in the container and waits for its end.
    async fn exec(&self, id: &ContainerId, exec: Exec<'_>) -> Result<ExecOutput, DockerError>;

    /// A file or folder of the container as a tar stream, at most `limit` bytes; `None` if it is not there.
    /// Works on stopped containers too, and follows no symlink out of the container.
    async fn download(
        &self,
        id: &ContainerId,
        path: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, DockerError>;

    /// What is at `path` in the container, running or not; `None` if nothing is. Links before the last part of the path
    /// are followed, within the container.
    async fn stat(&self, id: &ContainerId, path: &str) -> Result<Option<Node>, DockerError>;

    /// Unpacks a tar archive into a folder of the container. Owners are the archive's whatever user the container
    /// has, and no folder is replaced by a file. Without `copyUIDGID`: with it Docker gives everything to the
    /// container's user, whom it looks up in the *host's* list of users, and fails where that knows nobody of the name
    /// or number.
    async fn put(&self, id: &ContainerId, folder: &str, tar: Vec<u8>) -> Result<(), DockerError>;

    /// The last lines that the container wrote, for a person who has to find out why it failed.
    async fn last_lines(&self, id: &ContainerId, lines: usize) -> Result<Vec<String>, DockerError>;
}

#[async_trait]
impl Inside for Connection {
    async fn running_exec(&self, exec: &str) -> Result<Option<Vec<String>>, DockerError> {
        let answer = match self.get("inspect exec", exec, &format!("/exec/{}/json", raw::encode(exec))).await
        {
            Ok(answer) => answer,
            Err(error) if error.not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        if answer["Running"] != true {
            return Ok(None);
        }
        let process = &answer["ProcessConfig"];
        let arguments = process["arguments"].as_array().into_iter().flatten();
        let words = std::iter::once(&process["entrypoint"]).chain(arguments);
        Ok(Some(words.filter_map(Value::as_str).map(str::to_owned).collect()))
    }

    async fn exec(&self, id: &ContainerId, exec: Exec<'_>) -> Result<ExecOutput, DockerError> {
        let object = id.short().to_owned();
        bounded_by("exec", &object, exec.deadline, self.exec_unbounded(id, &exec)).await
    }

    async fn download(
        &self,
        id: &ContainerId,
        path: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, DockerError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut stream = Box::pin(self.client.download_from_container(id.as_str(), Some(options)));
        let read = async {
            let mut tar = Vec::new();
            while let Some(chunk) = stream.next().await {
                tar.extend_from_slice(&chunk.map_err(|error| failed("download", path, error))?);
                if tar.len() > limit {
                    return Err(garbled("download", path, &format!("more than {limit} bytes")));
                }
            }
            Ok(tar)
        };
        match bounded_by("download", path, CALL, read).await {
            Ok(tar) => Ok(Some(tar)),
            Err(error) if error.not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn stat(&self, id: &ContainerId, path: &str) -> Result<Option<Node>, DockerError> {
        // Go's `os.FileMode`, not the kernel's: https://pkg.go.dev/io/fs#FileMode
        const FOLDER: u32 = 1 << 31;
        const LINK: u32 = 1 << 27;
        const OTHER: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        let asked = self.client.get_container_archive_info(id.as_str(), Some(options));
        let found = match bounded("stat", path, CALL, asked).await {
            Ok(found) => found,
            Err(error) if error.not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(match found.file_mode {
            mode if mode & LINK != 0 => Node::Link { target: found.link_target },
            mode if mode & FOLDER != 0 => Node::Folder,
            mode if mode & OTHER != 0 => Node::Other,
            _ => Node::File { length: u64::try_from(found.size).unwrap_or(u64::MAX) },
        }))
    }

    async fn put(&self, id: &ContainerId, folder: &str, tar: Vec<u8>) -> Result<(), DockerError> {
        let options =
            UploadToContainerOptionsBuilder::default().path(folder).no_overwrite_dir_non_dir("true").build();
        let body = bollard::body_full(Bytes::from(tar));
        bounded("put", folder, CALL, self.client.upload_to_container(id.as_str(), Some(options), body)).await
    }

    async fn last_lines(&self, id: &ContainerId, lines: usize) -> Result<Vec<String>, DockerError> {
        let options =
            LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let stream = self.client.logs(id.as_str(), Some(options)).take(lines.saturating_mul(4));
        let read = async {
            let chunks: Vec<_> = stream.collect().await;
            let mut text = String::new();
            for chunk in chunks {
                let chunk = chunk.map_err(|error| failed("logs", id.short(), error))?;
                text.push_str(&String::from_utf8_lossy(&chunk.into_bytes()));
            }
            Ok(text
                .lines()
                .rev()
                .take(lines)
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .into_iter()
                .rev()
                .collect())
        };
        bounded_by("logs", id.short(), CALL, read).await
    }
}

impl Connection {
    async fn exec_unbounded(&self, id: &ContainerId, exec: &Exec<'_>) -> Result<ExecOutput, DockerError> {
        let object = id.short();
        let options = CreateExecOptions {
            attach_stdin: Some(exec.stdin.is_some()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(exec.argv.to_vec()),
            user: (!exec.user.is_empty()).then(|| exec.user.to_owned()),
            ..CreateExecOptions::default()
        };
        let created = self
            .client
            .create_exec(id.as_str(), options)
            .await
            .map_err(|error| failed("exec", object, error))?;
        let started = self.client.start_exec(&created.id, None::<StartExecOptions>).await;
        let started = started.map_err(|error| failed("exec", object, error))?;
        let StartExecResults::Attached { mut output, mut input } = started else {
            return Err(garbled("exec", object, "a detached command"));
        };
        let stdin = exec.stdin.map(<[u8]>::to_vec);
        let feed = async move {
            if let Some(stdin) = stdin {
                // A command may end without reading all; its exit code says whether that is wrong.
                let _ = input.write_all(&stdin).await;
                let _ = input.flush().await;
                let _ = input.shutdown().await;
            }
            // Kept open until here: with a closed input some engines cut the output short.
            input
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let read = async {
            while let Some(chunk) = output.next().await {
                match chunk.map_err(|error| failed("exec", object, error))? {
                    LogOutput::StdErr { message } => keep(&mut stderr, &message, exec.limit),
                    LogOutput::StdOut { message } | LogOutput::Console { message } => {
                        keep(&mut stdout, &message, exec.limit);
                    }
                    LogOutput::StdIn { .. } => {}
                }
            }
            Ok::<_, DockerError>(())
        };
        let (_input, read) = tokio::join!(feed, read);
        read?;
        let ended =
            self.client.inspect_exec(&created.id).await.map_err(|error| failed("exec", object, error))?;
        Ok(ExecOutput { code: ended.exit_code.unwrap_or(-1), stdout, stderr })
    }
}

fn keep(kept: &mut Vec<u8>, more: &[u8], limit: usize) {
    let room = limit.saturating_sub(kept.len());
    kept.extend_from_slice(&more[..more.len().min(room)]);
}
