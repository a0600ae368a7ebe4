//! `debug bundle`: the file for a bug report.

use std::{
    fs::{self, OpenOptions},
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
    ApiError, BundlePart, Code, DebugBundleReply, NetworkRequest, Verb,
    words::{bytes, stamp},
};

/// Settings of the kernel on which packets to and from us hang. Read here: from the agent its unit hides them
/// (ProcSubset=pid).
const SYSCTLS: &[&str] = &[
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
    "net/ipv4/conf/all/arp_ignore",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/disable_ipv6",
    "net/ipv6/conf/all/forwarding",
    "net/core/rmem_max",
    "net/core/wmem_max",
    "kernel/core_pattern",
];

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
        let mut reply: DebugBundleReply = reply.parse()?;
        reply.parts.push(sysctls());
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

/// One that this kernel has not, or does not show, is null.
fn sysctls() -> BundlePart {
    let value = |name: &&str| {
        let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok();
        let value = text.map(|text| text.trim().to_owned());
        ((*name).to_owned(), value.into())
    };
    BundlePart {
        part: "sysctl".to_owned(),
        facts: SYSCTLS.iter().map(value).collect(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_the_kernel_are_those_that_proc_shows() {
        let part = sysctls();
        let value = |name: &str| part.facts[name].as_str().map(str::to_owned);
        assert_eq!(
            value("net/ipv4/ip_forward"),
            Some(
                fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
                    .unwrap()
                    .trim()
                    .to_owned()
            )
        );
        assert_eq!(part.facts.len(), SYSCTLS.len());
    }
}
