//! Spool records: what can be read is written again byte for byte.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // The fuzzer cannot guess a checksum, so it is given one.
    let mut summed = bytes.to_vec();
    summed.extend_from_slice(format!("crc32 {:08x}\n", crc32(bytes)).as_bytes());
    for text in [bytes, &summed] {
        if let Ok(record) = git_mirror_push::spool::decode(text) {
            assert_eq!(git_mirror_push::spool::decode(&git_mirror_push::spool::encode(&record)), Ok(record));
        }
    }
});

/// CRC-32 as in gzip (ISO 3309), a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum)))
}
