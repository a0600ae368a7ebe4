//! The `webmesh` binary.
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["demo", "hold", ..] => webmesh::demo::hold(&words[2..]),
        ["demo"] => webmesh::demo::run(webmesh::demo::DemoOptions::default()),
        ["demo", "stop"] => webmesh::demo::stop(),
        ["demo", "shell", peer] => webmesh::demo::shell(peer),
        _ => ExitCode::from(2),
    }
}
