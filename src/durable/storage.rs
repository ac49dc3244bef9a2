//! The kind of file system that a directory is on.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

/// File systems on which other machines may see the same files: the number of statfs(2), and the name. The numbers of Lustre, GPFS and GFS2
/// are not in linux/magic.h.
const NETWORK: [(u32, &str); 13] = [
    (0x0000_6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0000_517b, "SMB"),
    (0x00c3_6400, "CephFS"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x7375_7245, "Coda"),
    (0x0102_1997, "9P"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
];

/// The name of the network file system that a path is on; `None` for a local one. FUSE counts as local: it does not say what is behind it.
///
/// # Errors
/// The operating system's.
pub fn network_file_system(path: &Path) -> io::Result<Option<&'static str>> {
    let found = rustix::fs::statfs(path)?;
    // The kernel's numbers have 32 bits.
    let number = found.f_type as u32;
    Ok(NETWORK.iter().find(|(known, _)| *known == number).map(|(_, name)| *name))
}

/// File systems on which syncfs(2) writes and reports no less than fsync(2) does.
const SYNCED_AS_A_WHOLE: [(u32, &str); 5] = [
    (0x0000_ef53, "ext4"),
    (0x5846_5342, "XFS"),
    (0x9123_683e, "Btrfs"),
    (0xf2f5_2010, "F2FS"),
    (0x0102_1994, "tmpfs"),
];

/// Whether syncfs(2) does for a file what fsync(2) does. That is so on some file systems, and only
/// since Linux 5.8: since then syncfs reports errors of earlier writes.
///
/// # Errors
/// The operating system's.
pub(super) fn is_synced_as_a_whole(file: &File) -> io::Result<bool> {
    static REPORTS: OnceLock<bool> = OnceLock::new();
    let number = rustix::fs::fstatfs(file)?.f_type as u32;
    let reports = || {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(5), Some(8))
    };
    Ok(SYNCED_AS_A_WHOLE.iter().any(|(known, _)| *known == number) && *REPORTS.get_or_init(reports))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "reads a header of the kernel")]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernel() {
        let header = std::fs::read_to_string("/usr/include/linux/magic.h").expect("the headers that gcc needs");
        let value = |name: &str| {
            let line = header.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
            let number = line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or_else(|| panic!("{name}"));
            u32::from_str_radix(number.trim_start_matches("0x"), 16).expect("a number")
        };
        for (constant, name) in [
            ("NFS_SUPER_MAGIC", "NFS"),
            ("CIFS_SUPER_MAGIC", "CIFS"),
            ("SMB2_SUPER_MAGIC", "SMB"),
            ("SMB_SUPER_MAGIC", "SMB"),
            ("CEPH_SUPER_MAGIC", "CephFS"),
            ("AFS_SUPER_MAGIC", "AFS"),
            ("AFS_FS_MAGIC", "AFS"),
            ("CODA_SUPER_MAGIC", "Coda"),
            ("V9FS_MAGIC", "9P"),
            ("OCFS2_SUPER_MAGIC", "OCFS2"),
        ] {
            assert!(NETWORK.contains(&(value(constant), name)), "{constant}");
        }
        for (constant, name) in [
            ("EXT4_SUPER_MAGIC", "ext4"),
            ("XFS_SUPER_MAGIC", "XFS"),
            ("BTRFS_SUPER_MAGIC", "Btrfs"),
            ("F2FS_SUPER_MAGIC", "F2FS"),
            ("TMPFS_MAGIC", "tmpfs"),
        ] {
            assert!(SYNCED_AS_A_WHOLE.contains(&(value(constant), name)), "{constant}");
        }
        for local in ["EXT4_SUPER_MAGIC", "XFS_SUPER_MAGIC", "TMPFS_MAGIC", "FUSE_SUPER_MAGIC"] {
            assert!(NETWORK.iter().all(|(number, _)| *number != value(local)), "{local}");
        }
        assert_eq!(network_file_system(Path::new("/proc")).expect("it is there"), None);
    }
}
