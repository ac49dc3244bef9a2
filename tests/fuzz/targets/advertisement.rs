//! Advertisements: every ref that is believed stands in the bytes, with a name that git would create.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for (name, oid) in git_mirror_push::push::fuzzed::advertisement(bytes).unwrap_or_default() {
        let name = name.as_bytes();
        assert!(name.starts_with(b"refs/") && !name.iter().any(|byte| *byte < 0x21 || *byte == 0x7f));
        let mut line = oid.to_string().into_bytes();
        line.push(b' ');
        line.extend_from_slice(name);
        let is_there = |part: &[u8]| part.eq_ignore_ascii_case(&line);
        assert!(bytes.windows(line.len()).any(is_there), "a ref that was not advertised");
    }
});
