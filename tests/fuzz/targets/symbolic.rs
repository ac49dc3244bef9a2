//! What upload-pack says of refs: nothing is taken for a ref of its own unless git says so, and no name comes back that was not asked for.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some(said) = git_mirror_push::fetch::fuzzed::symbolic(bytes) else { return };
    let says = |words: &[u8]| bytes.windows(words.len()).any(|part| part == words);
    assert!(said.plain.is_empty() || says(b"agent=git/"));
    assert!(said.symbolic.is_empty() || says(b"symref-target:"));
    for name in said.plain.iter().chain(&said.symbolic) {
        assert!([&b"refs/heads/a"[..], b"refs/heads/b"].contains(&name.as_bytes()));
    }
});
