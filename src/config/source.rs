//! Where the configuration comes from, so that it can be read again: the file, and what was typed over it.

use std::path::PathBuf;

use super::{Absence, Config, ConfigError, Port, TunName};

/// A file and the options of `webmesh daemon` that count more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub file: PathBuf,
    /// What it means when it is not there.
    pub absence: Absence,
    /// `--tun`.
    pub tun: Option<TunName>,
    /// `--port`.
    pub port: Option<Port>,
}

impl Source {
    /// Reads the file as it is now, and lays over it what was typed.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(&self.file, self.absence)?;
        if let Some(name) = &self.tun {
            config.tun.name = name.clone();
        }
        config.network.port = self.port.or(config.network.port);
        Ok(config)
    }

    /// Where the owner of this machine defines services: `services.d`, beside the file.
    pub fn services(&self) -> PathBuf {
        self.file.with_file_name("services.d")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u32) -> Port {
        number.try_into().unwrap()
    }

    #[test]
    fn what_was_typed_counts_more_than_the_file() {
        let file = std::env::temp_dir().join(format!("webmesh-source-{}.toml", std::process::id()));
        std::fs::write(&file, "[network]\nport = 5000\n[tun]\nname = \"mesh\"\n").unwrap();
        let mut source = Source {
            file,
            absence: Absence::Error,
            tun: None,
            port: None,
        };
        let read = source.load().unwrap();
        assert_eq!(
            (read.tun.name.as_str(), read.network.port),
            ("mesh", Some(port(5000)))
        );
        source.tun = Some("wm7".parse().unwrap());
        source.port = Some(port(6000));
        let read = source.load().unwrap();
        assert_eq!(
            (read.tun.name.as_str(), read.network.port),
            ("wm7", Some(port(6000)))
        );
        std::fs::remove_file(&source.file).unwrap();
    }
}
