//! `debug bundle`: the file for a bug report.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::Serialize as _;

use super::{
    args,
    conversation::{Conversation, DONE, Outcome},
    unix_now,
};
use crate::api::{
    ApiError, Code, DebugBundleReply, NetworkRequest, Verb,
    words::{bytes, stamp},
};

/// What `--json` says of the file.
#[derive(Debug, serde::Serialize)]
struct Written {
    file: PathBuf,
    bytes: u64,
}

impl Conversation<'_> {
    pub(super) async fn debug(&self, debug: &args::Debug) -> Outcome {
        let args::Debug::Bundle { output } = debug;
        let request = NetworkRequest {
            network: self.network(),
        };
        let reply = self.agent.ask(Verb::DebugBundle, &request).await?;
        let reply: DebugBundleReply = reply.parse()?;
        let file = output
            .clone()
            .unwrap_or_else(|| format!("webmesh-debug-{}.jsonl", stamp(unix_now())).into());
        let written = Written {
            bytes: write(&file, &reply).map_err(|error| unwritten(&file, &error))?,
            file,
        };
        if self.common.json {
            let json = serde_json::to_string(&written).expect("a path and a number");
            self.screen.document(&json)?;
        } else {
            self.screen.answer(&format!(
                "{}  {}, for your eyes only so far: read it, then send it to who helps you.\n",
                written.file.display(),
                bytes(written.bytes)
            ))?;
        }
        Ok(DONE)
    }
}

/// One part a line, in a new file that only its owner reads; how many bytes.
fn write(file: &Path, reply: &DebugBundleReply) -> io::Result<u64> {
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)?;
    let mut text = Vec::new();
    for part in &reply.parts {
        part.serialize(&mut serde_json::Serializer::new(&mut text))?;
        text.push(b'\n');
    }
    out.write_all(&text)?;
    Ok(text.len() as u64)
}

fn unwritten(file: &Path, error: &io::Error) -> ApiError {
    let file = file.display();
    if error.kind() == io::ErrorKind::AlreadyExists {
        return ApiError::could_not(Code::BadRequest, format!("{file} is there already"))
            .remedy("give another with --output FILE");
    }
    ApiError::could_not(Code::BadRequest, format!("cannot write {file}: {error}"))
        .remedy("give another place with --output FILE")
}
