//! Packet lines: any bytes end in an error or a count that they can hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    assert!(git_mirror_push::wire::fuzzed::packet_lines(bytes) <= bytes.len() / 4);
});
