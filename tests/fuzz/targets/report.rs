//! Reports: nothing counts as done unless the mirror said so.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let plain = git_mirror_push::push::fuzzed::report(bytes, false);
    for (is_done, line) in plain.into_iter().zip([&b"ok refs/heads/a"[..], b"ok refs/heads/b"]) {
        let says = |words: &[u8]| bytes.windows(words.len()).any(|part| part == words);
        assert!(!is_done || says(line) && says(b"unpack ok"));
    }
    // The side band may cut words in two, so here only the end counts: no panic, no endless loop.
    let _ = git_mirror_push::push::fuzzed::report(bytes, true);
});
