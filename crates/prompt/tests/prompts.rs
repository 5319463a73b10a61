//! The tokenizer against CLIP's own vectors, words to positions, subjects of the paper's prompts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use excite_prompt::{
    CONTEXT, Encoding, MAX_SUBJECTS, Subject, SubjectError, Tokenizer, find_subjects, paper_prompts,
};
use proptest::prelude::*;

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji/tokenizer/", $name))
    };
}

fn tokenizer_with(special: Option<&[u8]>) -> Tokenizer {
    Tokenizer::new(data!("vocab.json"), data!("merges.txt"), special).unwrap()
}

fn tokenizer() -> &'static Tokenizer {
    static ONE: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    ONE.get_or_init(|| tokenizer_with(Some(data!("special_tokens_map.json"))))
}

fn encode(prompt: &str) -> Encoding {
    tokenizer().encode(prompt).unwrap()
}

fn subjects(prompt: &str) -> Vec<Subject> {
    find_subjects(&encode(prompt)).subjects.into_iter().map(|found| found.subject).collect()
}

/// Ids of transformers' CLIPTokenizer and OpenCLIP, which agree.
#[test]
fn ids_are_those_of_clip() {
    #[rustfmt::skip]
    let table: &[(&str, &[u32])] = &[
        ("", &[]),
        ("a cat and a frog", &[320, 2368, 537, 320, 11438]),
        ("a mouse and a red car", &[320, 9301, 537, 320, 736, 1615]),
        ("an elephant with a crown", &[550, 10299, 593, 320, 6902]),
        ("a painting of an elephant with glasses", &[320, 3086, 539, 550, 10299, 593, 6116]),
        ("A Cat, and a DOG!", &[320, 2368, 267, 537, 320, 1929, 256]),
        ("a sombrero", &[320, 734, 47781]),
        ("a spiky porcupine", &[320, 3174, 2383, 817, 5059, 715]),
        ("a cat's hat", &[320, 2368, 568, 3801]),
        ("don't", &[847, 713]),
        ("1985", &[272, 280, 279, 276]),
        ("café", &[15304]),
        ("cafe\u{301}", &[15304]),
        ("naïve", &[1097, 35689, 563]),
        ("  a \t\n cat ", &[320, 2368]),
        ("a <|endoftext|> b", &[320, 49407, 321]),
    ];
    for (text, want) in table {
        let got = encode(text);
        assert_eq!(&got.ids[1..got.eot], *want, "{text}");
        assert_eq!((got.ids[0], got.ids[got.eot]), (49406, 49407), "{text}");
    }
}

#[test]
fn the_pad_is_the_models() {
    for (special, want) in [
        (None, 49407),
        (Some(r#"{"pad_token": "<|endoftext|>"}"#), 49407),
        (Some(r#"{"pad_token": "!"}"#), 0),
        (Some(r#"{"pad_token": {"content": "!"}}"#), 0),
    ] {
        let tokenizer = tokenizer_with(special.map(str::as_bytes));
        assert_eq!(tokenizer.pad(), want);
        let ids = tokenizer.encode("a cat").unwrap().ids;
        assert!(ids[4..].iter().all(|&id| id == want), "{special:?}");
    }
}

#[test]
fn what_does_not_fit_is_reported() {
    let exact = encode(&["cat"; 75].join(" "));
    assert_eq!((exact.eot, exact.truncated), (76, None));
    let long = encode(&format!("{} a sombrero and a dog", ["cat"; 73].join(" ")));
    assert_eq!((long.eot, long.ids[76]), (76, 49407));
    // "sombrero" has two pieces and is cut in the middle: no word of the prompt any more.
    assert_eq!(long.words.last().unwrap().text, "a");
    let cut = long.truncated.clone().unwrap();
    assert_eq!((cut.tokens, cut.text.as_str()), (4, "brero and a dog"));
    let error = long.subject("dog").unwrap_err();
    assert!(matches!(error, SubjectError::NotInPrompt { cut: true, .. }), "{error:?}");
}

#[test]
fn words_know_where_they_stand() {
    let got = encode("A  Café with 2 Sombreros!");
    let words: Vec<_> = got
        .words
        .iter()
        .map(|w| (w.text.as_str(), w.tokens.clone(), &"A  Café with 2 Sombreros!"[w.span.clone()]))
        .collect();
    assert_eq!(words[1], ("café", 2..3, "Café"));
    assert_eq!(words[3], ("2", 4..5, "2"));
    assert_eq!(words[4].2, "Sombreros");
    assert_eq!(words[5].2, "!");
}

#[test]
fn words_become_positions() {
    let prompt = encode("a cat, a Cat with a sombrero and a teddy bear");
    for (request, word, indices) in [
        ("cat#1", "cat", &[2u32][..]),
        ("CAT#2", "cat", &[5]),
        ("sombrero", "sombrero", &[8, 9]),
        ("teddy bear", "teddy bear", &[13]),
        (" bear ", "bear", &[13]),
    ] {
        let got = prompt.subject(request).unwrap();
        assert_eq!((got.word.as_str(), got.indices.as_slice()), (word, indices), "{request}");
    }
    for (request, want) in [
        ("dog", "subject `dog` is not a word of the prompt"),
        ("ca", "subject `ca` is not a word of the prompt"),
        ("cat", "subject `cat` is in the prompt 2 times, at 2 and 5"),
        ("cat#3", "subject `cat` asks for occurrence 3, the prompt has 2"),
        ("cat#0", "subject `cat` asks for occurrence 0, the prompt has 2"),
        (" ", "a subject is empty"),
    ] {
        assert_eq!(prompt.subject(request).unwrap_err().to_string(), want, "{request}");
    }
    let (code, remedy) = prompt.subject("dog").unwrap_err().advice();
    assert_eq!(code, "subject_not_in_prompt");
    assert!(remedy.contains("1 a, 2 cat, 3 ,, 4 a, 5 cat") && remedy.contains("8-9 sombrero"));
    assert_eq!(prompt.subject_at(&[8, 9]).unwrap().word, "sombrero");
    for index in [0, 14, 77, u32::MAX] {
        let error = prompt.subject_at(&[index]).unwrap_err();
        assert_eq!(error, SubjectError::Index { index, last: 13 });
    }
}

#[test]
fn the_subjects_of_the_papers_prompts_are_found() {
    assert_eq!(paper_prompts().count(), 276);
    for prompt in paper_prompts() {
        let got: Vec<_> = subjects(prompt.text).into_iter().map(|s| (s.word, s.indices)).collect();
        let want = prompt.subjects.map(|subject| (subject.word.to_owned(), vec![subject.index]));
        assert_eq!(got, want, "{}", prompt.text);
    }
}

#[test]
fn subjects_of_other_forms_are_found() {
    for (prompt, want) in [
        ("a painting of an elephant with glasses", &["elephant", "glasses"][..]),
        ("a cat, a dog and a frog", &["cat", "dog", "frog"]),
        ("two cats", &["cats"]),
        ("an orange and a orange chair", &["orange", "chair"]),
        ("the happy gizmo on a shiny table", &["gizmo", "table"]),
        ("a photo of a cat next to a cat", &["cat"]),
        ("abstract mood", &[]),
        ("", &[]),
    ] {
        let got: Vec<String> = subjects(prompt).into_iter().map(|subject| subject.word).collect();
        assert_eq!(got, want, "{prompt}");
    }
}

#[test]
fn broken_files_are_named() {
    let merges = data!("merges.txt");
    for (vocab, merges, want) in [
        (&b"{"[..], &merges[..], "vocab.json"),
        (b"{\"a\": 1}", merges, "<|startoftext|>"),
        (data!("vocab.json"), b"#version: 0.2\nonlyone\n", "line 2"),
        (data!("vocab.json"), b"\xff", "merges.txt"),
    ] {
        let error = Tokenizer::new(vocab, merges, None).err().unwrap().to_string();
        assert!(error.contains(want), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_encoded_and_searched(text in "\\PC{0,120}|(?s).{0,200}|([a-z ']{1,9} ){0,120}") {
        let got = encode(&text);
        prop_assert_eq!(got.ids[0], 49406);
        prop_assert!((1..CONTEXT).contains(&got.eot));
        prop_assert_eq!(got.ids[got.eot], 49407);
        prop_assert!(got.ids[got.eot + 1..].iter().all(|&id| id == tokenizer().pad()));
        let mut last = 1;
        for word in &got.words {
            prop_assert!(word.tokens.start >= last && word.tokens.end <= got.eot);
            prop_assert!(text.get(word.span.clone()).is_some());
            last = word.tokens.end;
        }
        let subjects = find_subjects(&got).subjects;
        prop_assert!(subjects.len() <= MAX_SUBJECTS);
        for found in subjects {
            for subject in std::iter::once(&found.subject).chain(&found.attributes) {
                prop_assert!(got.subject_at(&subject.indices).is_ok());
            }
        }
    }

    #[test]
    fn any_request_is_answered(prompt in "[a-z ]{0,40}", request in "\\PC{0,20}|[a-z#0-9 ]{0,10}", index in any::<u32>()) {
        let got = encode(&prompt);
        let _ = got.subject(&request);
        let _ = got.subject_at(&[index]);
    }
}
