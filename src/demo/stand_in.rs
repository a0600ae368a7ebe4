//! A web server, a client and a stream by plain sockets, for machines without `python3`, `curl` or `iperf3`; and small waits.
//!
//! Knows as much HTTP as the demo needs. Refuses to be used where the real programs are found; the demo says so.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv6Addr, Shutdown, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::platform::sock_diag::{Listening, Port, listening};

/// Serves the files of a directory, one request a connection, until it is killed.
pub(super) fn serve(address: &str, directory: &Path) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    for stream in listener.incoming() {
        let stream = stream?;
        let directory = directory.to_owned();
        // A client that goes away is its own affair.
        thread::spawn(move || drop(answer(stream, &directory)));
    }
    Ok(())
}

fn answer(mut stream: TcpStream, directory: &Path) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let name = match first
        .split(' ')
        .nth(1)
        .map(|path| path.trim_start_matches('/'))
    {
        Some("") | None => "index.html",
        Some(name) => name,
    };
    let is_plain = !name.contains('/') && !name.starts_with('.');
    match File::open(directory.join(name)) {
        Ok(mut file) if is_plain => {
            let length = file.metadata()?.len();
            write!(
                stream,
                "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n"
            )?;
            io::copy(&mut file, &mut stream)?;
        }
        Ok(_) | Err(_) => write!(stream, "HTTP/1.0 404 Not Found\r\n\r\n")?,
    }
    stream.shutdown(Shutdown::Write)
}

/// Fetches `http://HOST/PATH` into `output`, `rate` bytes a second, and prints the seconds to its first byte.
pub(super) fn fetch(url: &str, output: &Path, rate: u64) -> io::Result<()> {
    let began = Instant::now();
    let rest = url.trim_start_matches("http://");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect((host, 80))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
    let mut from = BufReader::new(stream);
    let mut head = String::new();
    from.read_line(&mut head)?;
    let first_byte = began.elapsed();
    if !head.contains(" 200 ") {
        return Err(io::Error::other(head));
    }
    while head.trim() != "" {
        head.clear();
        from.read_line(&mut head)?;
    }
    let mut out = File::create(output)?;
    let mut chunk = vec![0; 64 * 1024];
    let mut received = 0;
    loop {
        let length = from.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        out.write_all(&chunk[..length])?;
        received += u64::try_from(length).map_err(io::Error::other)?;
        let due = Duration::from_millis(received.saturating_mul(1000) / rate);
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    write!(io::stderr(), "{:.6}", first_byte.as_secs_f64())
}

/// Takes one TCP stream on `port` to its end, and prints at how many bits a second it came.
pub(super) fn sink(port: u16) -> io::Result<()> {
    // Dual stack: the mesh may be met by either family.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let (mut stream, _) = listener.accept()?;
    let (began, mut chunk, mut bytes) = (Instant::now(), vec![0; 1 << 20], 0_u64);
    loop {
        match stream.read(&mut chunk)? {
            0 => break,
            length => bytes += u64::try_from(length).map_err(io::Error::other)?,
        }
    }
    let micros = u64::try_from(began.elapsed().as_micros()).map_err(io::Error::other)?;
    let bits = bytes.saturating_mul(8_000_000) / micros.max(1);
    writeln!(io::stdout(), "{bits}")
}

/// Sends zeros to a [`sink`] for so long.
pub(super) fn pour(host: &str, port: u16, lasts: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect((host, port))?;
    let (began, chunk) = (Instant::now(), vec![0; 1 << 20]);
    while began.elapsed() < lasts {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(Shutdown::Write)
}

/// Waits until a TCP listener on `port` is there; design §13 wants events, and the kernel has none for this.
pub(super) fn await_port(port: u16) -> io::Result<()> {
    let began = Instant::now();
    while listening(Port::Tcp(port), &[])? == Listening::Nobody {
        if began.elapsed() > PORT_LIMIT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Where a program is found, as a shell would.
pub(super) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|seen| seen.is_file()) && is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Longer than any program here takes to listen, on a machine that is building beside it.
const PORT_LIMIT: Duration = Duration::from_secs(15);
