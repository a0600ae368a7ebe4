//! The state directory: who holds it, and one folder per network (design §11).
//!
//! Knows paths, the lock, who may read them, and what a folder must hold to be a network. Refuses to make up for what is
//! damaged: a folder whose files are not good, or are links or somebody else's, is left as it is and said so. Rights that
//! are too wide are made narrow, and that is said.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg, OFlag};

use super::{
    failpoint,
    kept_file::{Identity, Unreadable, decode_kept, encode_kept},
    ownership,
    records_log::{Entries, RecordsLog},
    rows::RowsFile,
    slot_file::{LoadSlotError, SlotFile},
};
use crate::{
    hash::{Use, hash},
    ids::{JoinId, NetworkId},
    node::{input::Row, is_signed, kept::Kept},
    platform::credentials,
    wire::record::{Kind, Record},
};

/// The directory, held by this agent alone while this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<File>,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenStateDirError {
    /// It cannot be made or its rights cannot be set.
    #[error("cannot use the state directory {0}: give another with --state-dir{root}", root = ownership::or_as_root())]
    Unusable(PathBuf, #[source] io::Error),
    /// Everybody may write there: it is no folder for keys, and not this agent's to close.
    #[error("everybody may write in {0}: give the agent a folder of its own with --state-dir")]
    Open(PathBuf),
    /// It is this agent's, and what lies in it is not.
    #[error(
        "files in {0} belong to another user: sudo chown -R --reference={0} {0}, then start the agent again"
    )]
    Closed(PathBuf),
    /// Another agent holds its lock.
    #[error("another agent runs on {0}: stop it, or give this one another --state-dir")]
    Held(PathBuf),
}

/// The files of one network, open.
#[derive(Debug)]
pub(super) struct NetworkFolder {
    path: PathBuf,
    pub(super) identity: Identity,
    state: SlotFile,
    pub(super) records: RecordsLog,
    pub(super) rows: RowsFile,
}

/// What was found in a network's folder.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Which network it is; None where no record says so.
    pub(super) network: Option<NetworkId>,
    pub(super) kept: Kept,
    pub(super) records: Vec<Record>,
    pub(super) rows: Vec<Row>,
}

/// Why a network's folder cannot be used. Nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenNetworkError {
    /// A two-slot file is not good.
    #[error(transparent)]
    Slot(#[from] LoadSlotError),
    /// A two-slot file is good and its body is not.
    #[error("{0}")]
    Body(PathBuf, #[source] Unreadable),
    /// There is no identity.
    #[error("{0} is missing")]
    NoIdentity(PathBuf),
    /// A file is a link, or somebody else's.
    #[error("{0} {1}")]
    Strange(PathBuf, &'static str),
    /// The disk said no.
    #[error("cannot open {0}")]
    Open(PathBuf, #[source] io::Error),
}

impl StateDir {
    /// Makes the directory (0700) if it is not there, and takes its lock.
    ///
    /// # Errors
    /// It cannot be made, or another agent holds it.
    pub fn open(path: &Path) -> Result<Self, OpenStateDirError> {
        let unusable = |error| OpenStateDirError::Unusable(path.to_owned(), error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let facts = std::fs::metadata(path).map_err(unusable)?;
        if facts.mode() & 0o002 != 0 {
            return Err(OpenStateDirError::Open(path.to_owned()));
        }
        narrow(path, &facts).map_err(unusable)?;
        let lock = path.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&lock)
            .map_err(|error| {
                if ownership::is_closed(&error) && facts.uid() == credentials::own_uid() {
                    OpenStateDirError::Closed(path.to_owned())
                } else {
                    unusable(error)
                }
            })?;
        ownership::follow(path, &lock);
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(OpenStateDirError::Held(path.to_owned()))
            }
            Err((_, errno)) => Err(unusable(errno.into())),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folders of networks, by name. Foundings that never ended are removed: nobody was told of them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(super) fn network_folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with("founding-") {
                std::fs::remove_dir_all(entry.path())?;
            } else if is_network_name(name) {
                folders.push(entry.path());
            }
        }
        folders.sort();
        Ok(folders)
    }

    /// Makes the folder of a network that is being founded; [`StateDir::settle`] gives it its name.
    ///
    /// # Errors
    /// What was made so far is removed at the next start.
    pub(super) fn found(
        &self,
        network: NetworkId,
        identity: Identity,
    ) -> anyhow::Result<NetworkFolder> {
        let path = self.path.join(format!("founding-{}", short_name(network)));
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        NetworkFolder::create(path, identity, "founding-identity")
    }

    /// The folder of a join, found again if this token was tried before: the same token, the same identity.
    ///
    /// # Errors
    /// Nothing was sent yet, so nothing is lost.
    pub(super) fn join(&self, id: JoinId, fresh: Identity) -> anyhow::Result<NetworkFolder> {
        let path = self.path.join(format!("joining-{id}"));
        if path.exists() {
            match NetworkFolder::open(path.clone()) {
                Ok((folder, _)) => return Ok(folder),
                Err(OpenNetworkError::NoIdentity(_)) => std::fs::remove_dir_all(&path)?,
                Err(error) => return Err(error.into()),
            }
        }
        NetworkFolder::create(path, fresh, "join-identity")
    }

    /// Gives a folder that was being founded or joined the name of its network.
    ///
    /// # Errors
    /// It keeps the name it has.
    pub(super) fn settle(&self, folder: &mut NetworkFolder, network: NetworkId) -> io::Result<()> {
        failpoint::reach("settle.before");
        let path = self.path.join(short_name(network));
        std::fs::rename(&folder.path, &path)?;
        File::open(&self.path)?.sync_all()?;
        failpoint::reach("settle.after");
        folder.rename(path);
        self.remove_attempts();
        Ok(())
    }

    /// This machine is in a network: what earlier attempts to found or join one left is of no use.
    fn remove_attempts(&self) {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_attempt = name
                .to_str()
                .is_some_and(|name| name.starts_with("founding-") || name.starts_with("joining-"));
            if is_attempt && let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(%error, path = %entry.path().display(), "What an attempt left stays");
            }
        }
    }

    /// Removes a network's folder for good.
    ///
    /// # Errors
    /// A part of it may be left, without its name: it is no network any more.
    pub(super) fn remove(&self, folder: NetworkFolder) -> io::Result<()> {
        let grave = self.path.join("founding-left");
        if grave.exists() {
            std::fs::remove_dir_all(&grave)?;
        }
        std::fs::rename(&folder.path, &grave)?;
        // A power cut must not bring back what was left.
        File::open(&self.path)?.sync_all()?;
        drop(folder);
        std::fs::remove_dir_all(&grave)
    }
}

impl NetworkFolder {
    /// Opens a folder and reads all that is in it.
    ///
    /// # Errors
    /// Nothing in it was touched, except that the damaged tail of the record log may be cut.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Found), OpenNetworkError> {
        keep_private(&path)?;
        let (_, identity) = SlotFile::load(&path, "identity")?;
        let identity =
            identity.ok_or_else(|| OpenNetworkError::NoIdentity(path.join("identity")))?;
        let identity = Identity::decode(&identity)
            .map_err(|error| OpenNetworkError::Body(path.join("identity"), error))?;
        let (state, body) = SlotFile::load(&path, "state")?;
        let kept = match body {
            Some(body) => decode_kept(&body)
                .map_err(|error| OpenNetworkError::Body(path.join("state"), error))?,
            None => Kept::default(),
        };
        let unopened = |name: &str| {
            let path = path.join(name);
            move |error| OpenNetworkError::Open(path, error)
        };
        let decode = |bytes: &[u8]| Record::decode(bytes).ok();
        let entries = Entries::read(&path, decode).map_err(unopened("records.log"))?;
        let network = network_of(entries.records());
        // A disk that flips a bit must not change what somebody signed.
        let is_good = |record: &Record| network.is_some_and(|network| is_signed(record, network));
        let judged = entries.judged(Record::slot, is_good);
        let (records, found_records) = judged.map_err(unopened("records.log"))?;
        let (rows, found_rows) = RowsFile::open(&path).map_err(unopened("rows"))?;
        let found = Found {
            network,
            kept,
            records: found_records,
            rows: found_rows,
        };
        let folder = Self {
            path,
            identity,
            state,
            records,
            rows,
        };
        Ok((folder, found))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the whole kept state and waits for the disk. `point` names the write for tests that crash in it.
    ///
    /// # Errors
    /// The state written before counts.
    pub(super) fn store_kept(&mut self, kept: &Kept, point: &str) -> io::Result<()> {
        self.state.store(&encode_kept(kept), point)
    }

    fn create(path: PathBuf, identity: Identity, point: &str) -> anyhow::Result<Self> {
        DirBuilder::new().mode(0o700).create(&path)?;
        if let Some(parent) = path.parent() {
            ownership::follow(parent, &path);
        }
        let (mut file, _) = SlotFile::load(&path, "identity")?;
        file.store(&identity.encode(), point)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self::open(path)?.0)
    }

    fn rename(&mut self, path: PathBuf) {
        self.state.rename(&path);
        self.records.rename(&path);
        self.path = path;
    }
}

/// Whether the folder and what lies in it are plain and of one owner; closes what others could read.
fn keep_private(folder: &Path) -> Result<(), OpenNetworkError> {
    let unopened = |error| OpenNetworkError::Open(folder.to_owned(), error);
    let mut paths = vec![folder.to_owned()];
    let facts = std::fs::symlink_metadata(folder).map_err(unopened)?;
    if facts.is_dir() {
        for entry in std::fs::read_dir(folder).map_err(unopened)? {
            paths.push(entry.map_err(unopened)?.path());
        }
    }
    let owners = [0, credentials::own_uid(), facts.uid()];
    for path in paths {
        let facts = std::fs::symlink_metadata(&path).map_err(unopened)?;
        let is_wanted = facts.is_file() || (facts.is_dir() && path == folder);
        if !is_wanted {
            return Err(OpenNetworkError::Strange(path, "is no plain file"));
        }
        if !owners.contains(&facts.uid()) {
            return Err(OpenNetworkError::Strange(path, "belongs to another user"));
        }
        if let Some(parent) = path.parent() {
            ownership::follow(parent, &path);
        }
        narrow(&path, &facts).map_err(unopened)?;
    }
    Ok(())
}

/// Takes from everybody but the owner what rights they have.
fn narrow(path: &Path, facts: &std::fs::Metadata) -> io::Result<()> {
    if facts.mode() & 0o077 == 0 {
        return Ok(());
    }
    tracing::warn!(
        path = %path.display(),
        was = format!("{:o}", facts.mode() & 0o777),
        "State was open to other users and is closed now; if one of them may have read it: join anew"
    );
    let narrow = std::fs::Permissions::from_mode(facts.mode() & 0o700);
    std::fs::set_permissions(path, narrow)
}

/// The network whose root signed one of these.
fn network_of<'a>(mut records: impl Iterator<Item = &'a Record>) -> Option<NetworkId> {
    records.find_map(|record| {
        let id = NetworkId(hash(Use::Network, &[&record.subject()]));
        (record.kind() == Kind::Network && is_signed(record, id)).then_some(id)
    })
}

fn short_name(network: NetworkId) -> String {
    let mut name = network.to_string();
    name.truncate(16);
    name
}

fn is_network_name(name: &str) -> bool {
    name.len() == 16 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A new empty folder of a test's own.
    pub(crate) fn scratch(what: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!(
            "webmesh-{what}-{:016x}",
            rand_core::RngCore::next_u64(&mut rand_core::OsRng)
        ));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn identity() -> Identity {
        Identity {
            node_seed: [5; 32],
            tunnel_seed: [6; 32],
        }
    }

    #[test]
    fn what_root_writes_belongs_to_the_directorys_owner_and_so_does_what_root_left() {
        if credentials::own_uid() != 0 {
            return;
        }
        let path = scratch("dir").join("state");
        let id = NetworkId([1; 32]);
        let files = |path: &Path| -> Vec<PathBuf> {
            let entries = std::fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let owner = |path: &Path| {
            let facts = std::fs::symlink_metadata(path).unwrap();
            (facts.uid(), facts.gid())
        };
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(4711), Some(4712)).unwrap();
        let dir = StateDir::open(&path).unwrap();
        let mut folder = dir.found(id, identity()).unwrap();
        folder.store_kept(&Kept::default(), "test").unwrap();
        folder.records.compact().unwrap();
        dir.settle(&mut folder, id).unwrap();
        let all = || [files(&path), files(&folder.path)].concat();
        assert!(all().len() >= 6, "{:?}", all());
        for file in all() {
            assert_eq!(owner(&file), (4711, 4712), "{}", file.display());
        }
        // An earlier version left these.
        for file in all() {
            std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
        }
        NetworkFolder::open(folder.path.clone()).unwrap();
        for file in files(&folder.path) {
            assert_eq!(owner(&file), (4711, 4712), "{}", file.display());
        }
    }

    #[test]
    fn what_may_not_be_read_is_told_from_what_is_damaged() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let path = PathBuf::from("state.a");
        let closed = OpenNetworkError::Slot(LoadSlotError::Read(path.clone(), denied));
        assert!(ownership::is_closed(&closed));
        assert!(!ownership::is_closed(&LoadSlotError::Damaged(path)));
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_second_agent_on_the_same_directory_is_refused() {
        let path = scratch("dir").join("state");
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(matches!(error, OpenStateDirError::Held(_)));
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn nobody_else_may_read_the_directory_or_a_file_in_it() {
        let path = scratch("dir").join("state");
        let dir = StateDir::open(&path).unwrap();
        let mut folder = dir.found(NetworkId([1; 32]), identity()).unwrap();
        folder.store_kept(&Kept::default(), "test").unwrap();
        dir.settle(&mut folder, NetworkId([1; 32])).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&folder.path), 0o700);
        for entry in std::fs::read_dir(&folder.path).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }

    /// A network's folder in a state directory, closed as it should be.
    fn settled() -> (StateDir, PathBuf) {
        let dir = StateDir::open(&scratch("dir").join("state")).unwrap();
        let mut folder = dir.found(NetworkId([1; 32]), identity()).unwrap();
        dir.settle(&mut folder, NetworkId([1; 32])).unwrap();
        (dir, folder.path.clone())
    }

    #[test]
    fn rights_that_are_too_wide_are_taken_away() {
        let (dir, folder) = settled();
        let widen = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        widen(&dir.path, 0o755);
        widen(&folder, 0o750);
        widen(&folder.join("identity.a"), 0o644);
        let path = dir.path.clone();
        drop(dir);
        StateDir::open(&path).unwrap();
        NetworkFolder::open(folder.clone()).unwrap();
        assert_eq!((mode(&path), mode(&folder)), (0o700, 0o700));
        assert_eq!(mode(&folder.join("identity.a")), 0o600);
    }

    #[test]
    fn a_link_in_place_of_a_file_or_a_folder_is_refused_and_left_alone() {
        let (dir, folder) = settled();
        let elsewhere = scratch("elsewhere").join("identity.a");
        std::fs::rename(folder.join("identity.a"), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, folder.join("identity.a")).unwrap();
        let error = NetworkFolder::open(folder.clone()).unwrap_err();
        assert!(matches!(error, OpenNetworkError::Strange(..)), "{error}");
        std::fs::remove_file(folder.join("identity.a")).unwrap();
        std::fs::rename(&elsewhere, folder.join("identity.a")).unwrap();

        let real = elsewhere.with_file_name("folder");
        std::fs::rename(&folder, &real).unwrap();
        std::os::unix::fs::symlink(&real, &folder).unwrap();
        assert_eq!(
            dir.network_folders().unwrap(),
            std::slice::from_ref(&folder)
        );
        let error = NetworkFolder::open(folder).unwrap_err();
        assert!(matches!(error, OpenNetworkError::Strange(..)), "{error}");
    }

    #[test]
    fn a_folder_for_everybody_is_no_state_directory_and_stays_open() {
        let path = scratch("dir");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(matches!(error, OpenStateDirError::Open(_)), "{error}");
        assert_eq!(mode(&path), 0o777);
    }

    #[test]
    fn a_settled_network_is_found_with_its_state_and_an_unfinished_one_is_gone() {
        let path = scratch("dir").join("state");
        let dir = StateDir::open(&path).unwrap();
        let mut folder = dir.found(NetworkId([1; 32]), identity()).unwrap();
        dir.found(NetworkId([2; 32]), identity()).unwrap();
        dir.settle(&mut folder, NetworkId([1; 32])).unwrap();
        let kept = Kept {
            floor_s: 7,
            ..Kept::default()
        };
        folder.store_kept(&kept, "test").unwrap();
        let folders = dir.network_folders().unwrap();
        assert_eq!(folders, [path.join("0101010101010101")]);
        let (again, found) = NetworkFolder::open(folders[0].clone()).unwrap();
        assert_eq!(again.identity, identity());
        assert_eq!(found.kept, kept);
        assert!(!path.join("founding-0202020202020202").exists());
    }

    #[test]
    fn the_same_token_finds_the_same_identity_again() {
        let dir = StateDir::open(&scratch("dir").join("state")).unwrap();
        drop(dir.join(JoinId([3; 8]), identity()).unwrap());
        let other = Identity {
            node_seed: [8; 32],
            tunnel_seed: [9; 32],
        };
        assert_eq!(
            dir.join(JoinId([3; 8]), other).unwrap().identity,
            identity()
        );
    }

    #[test]
    fn a_damaged_identity_is_said_and_left_alone() {
        let dir = StateDir::open(&scratch("dir").join("state")).unwrap();
        let mut folder = dir.found(NetworkId([1; 32]), identity()).unwrap();
        dir.settle(&mut folder, NetworkId([1; 32])).unwrap();
        std::fs::write(folder.path.join("identity.a"), b"WMSTjunk").unwrap();
        let error = NetworkFolder::open(folder.path.clone()).unwrap_err();
        assert!(matches!(
            error,
            OpenNetworkError::Slot(LoadSlotError::Damaged(_))
        ));
        assert_eq!(
            std::fs::read(folder.path.join("identity.a")).unwrap(),
            b"WMSTjunk"
        );
    }

    #[test]
    fn a_flipped_byte_in_the_record_log_makes_no_record() {
        let now = crate::platform::clock::now();
        let founding = crate::node::founding::Founding {
            name: "home".into(),
            domain: "home.internal".into(),
            peer: "anna".into(),
            pool4: None,
            root: crate::keys::RootSeed([1; 16]),
            secret: crate::keys::NetSecret([2; 32]),
            admission: [3; 8],
        };
        let key = crate::keys::NodeKey::from_seed([5; 32]);
        let (id, restored) = crate::node::founding::found(now, founding, &key).unwrap();
        let dir = StateDir::open(&scratch("dir").join("state")).unwrap();
        let mut folder = dir.found(id, identity()).unwrap();
        for record in &restored.records {
            let (slot, bytes) = (record.slot(), record.bytes());
            folder.records.append(slot, bytes, "test").unwrap();
        }
        let path = folder.path().to_owned();
        drop(folder);
        let whole = std::fs::read(path.join("records.log")).unwrap();
        let bytes_of = |records: &[Record]| -> Vec<Vec<u8>> {
            records
                .iter()
                .map(|record| record.bytes().to_vec())
                .collect()
        };
        let good = bytes_of(&restored.records);
        assert_eq!(
            bytes_of(&NetworkFolder::open(path.clone()).unwrap().1.records),
            good
        );
        for at in (0..whole.len()).step_by(7) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(path.join("records.log"), flipped).unwrap();
            let (_, found) = NetworkFolder::open(path.clone()).unwrap();
            let found = bytes_of(&found.records);
            assert!(found.len() < good.len(), "byte {at}");
            assert!(
                found.iter().all(|record| good.contains(record)),
                "byte {at}"
            );
        }
    }

    #[test]
    fn a_settled_network_ends_what_attempts_left_and_nothing_else() {
        let (dir, settled) = settled();
        drop(dir.found(NetworkId([2; 32]), identity()).unwrap());
        drop(dir.join(JoinId([3; 8]), identity()).unwrap());
        std::fs::write(dir.path.join("notes"), "mine").unwrap();
        let mut folder = dir.found(NetworkId([4; 32]), identity()).unwrap();
        dir.settle(&mut folder, NetworkId([4; 32])).unwrap();
        let mut names: Vec<String> = std::fs::read_dir(&dir.path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["0101010101010101", "0404040404040404", "lock", "notes"]
        );
        assert!(settled.join("identity.a").exists());
    }

    #[test]
    fn a_left_network_is_gone() {
        let path = scratch("dir").join("state");
        let dir = StateDir::open(&path).unwrap();
        let mut folder = dir.found(NetworkId([1; 32]), identity()).unwrap();
        dir.settle(&mut folder, NetworkId([1; 32])).unwrap();
        dir.remove(folder).unwrap();
        assert!(dir.network_folders().unwrap().is_empty());
    }
}
