//! Writing beside the target.

use std::fs;
use std::io::ErrorKind;

use kc_core::Error;
use kc_io::atomic::{self, Durability};

fn fill(path: &std::path::Path, text: &str) -> kc_core::Result<()> {
    atomic::write(path, |out| out.write_all(text.as_bytes()).map_err(|e| Error::io(path, &e)))
}

#[test]
fn a_failed_write_leaves_the_target_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fill(&path, "old").unwrap();
    let failed = atomic::write(&path, |out| {
        out.write_all(&[b'x'; 1 << 20]).map_err(|e| Error::io(&path, &e))?;
        Err(Error::Cancelled)
    });
    assert_eq!(failed, Err(Error::Cancelled));
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_write_replaces_the_target_and_readers_keep_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    fill(&path, "old").unwrap();
    let old = kc_io::map::map(&path).unwrap();
    atomic::write_with(&path, Durability::Sync, |out| {
        out.write_all(b"new").map_err(|e| Error::io(&path, &e))
    })
    .unwrap();
    assert_eq!(&*old, b"old");
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn a_folder_and_a_missing_folder_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let kind = |result| match result {
        Err(Error::Io { kind, .. }) => kind,
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(fill(dir.path(), "x")), ErrorKind::IsADirectory);
    assert_eq!(kind(fill(&dir.path().join("none/x"), "x")), ErrorKind::NotFound);
    assert_eq!(kind(kc_io::map::map(dir.path()).map(drop)), ErrorKind::IsADirectory);
    assert_eq!(kind(kc_io::read(dir.path().join("none.npy")).map(drop)), ErrorKind::NotFound);
}

#[cfg(unix)]
#[test]
fn permissions_links_and_devices_survive() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    // A new file gets what any new file gets.
    let (path, usual) = (dir.path().join("x"), dir.path().join("usual"));
    fill(&path, "old").unwrap();
    fs::write(&usual, "").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode(), fs::metadata(&usual).unwrap().mode());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    fill(&link, "new").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    fill("/dev/null".as_ref(), "gone").unwrap();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(matches!(kc_io::map::map("/dev/zero"), Err(Error::Unsupported { .. })));
}

#[test]
fn an_empty_file_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npy");
    fill(&path, "").unwrap();
    assert!(kc_io::map::map(&path).unwrap().is_empty());
    assert!(matches!(kc_io::read(&path), Err(Error::Parse { .. })));
}
