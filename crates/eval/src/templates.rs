//! The 80 sentences around a prompt whose mean feature stands for it, and the parts of a prompt.
//!
//! From the metrics of the Attend-and-Excite repository (`metrics/imagenet_utils.py`,
//! `compute_clip_similarity.py`), which takes the templates of CLIP's notebook for ImageNet.

/// How many templates there are.
pub const TEMPLATES: usize = 80;

const PHOTOS: [&str; 11] = [
    "bad",
    "cropped",
    "bright",
    "dark",
    "good",
    "close-up",
    "low resolution",
    "black and white",
    "pixelated",
    "blurry",
    "jpeg corrupted",
];
const COUNTS: [&str; 5] = ["many", "my", "one", "a", "the"];
const QUALITIES: [&str; 8] =
    ["hard to see", "clean", "dirty", "cool", "large", "nice", "weird", "small"];
const MEDIA: [&str; 8] = [
    "a sculpture of",
    "a rendering of",
    "a tattoo of",
    "a drawing of",
    "a painting of",
    "a doodle of",
    "a sketch of",
    "a rendition of",
];
const BARE_MEDIA: [&str; 2] = ["graffiti of", "art of"];
const TAKEN: [&str; 3] = ["a", "the", "my"];
const MATERIALS: [&str; 6] = ["embroidered", "plastic", "origami", "toy", "cartoon", "plushie"];
const ARTICLES: [&str; 2] = ["a", "the"];

/// The prompt in each of the templates.
///
/// Doubled articles are mended as the original mends them, by two replacements of letters in this
/// order: "a a" by "a", then "the a" by "a". They do not stop at words ("banana and" becomes
/// "bananand"), and "my a cat" stays.
pub fn filled(prompt: &str) -> Vec<String> {
    let mut all = Vec::with_capacity(TEMPLATES);
    for article in ARTICLES {
        all.extend(PHOTOS.map(|kind| format!("a {kind} photo of {article} {prompt}.")));
        all.extend(QUALITIES.map(|kind| format!("a photo of {article} {kind} {prompt}.")));
        all.extend(MEDIA.map(|medium| format!("{medium} {article} {prompt}.")));
        all.extend(BARE_MEDIA.map(|medium| format!("{medium} {article} {prompt}.")));
        all.extend(MATERIALS.map(|material| format!("{article} {material} {prompt}.")));
        all.push(format!("{article} {prompt} in a video game."));
    }
    all.extend(COUNTS.map(|count| format!("a photo of {count} {prompt}.")));
    all.extend(TAKEN.map(|whose| format!("itap of {whose} {prompt}.")));
    all.iter().map(|text| text.replace("a a", "a").replace("the a", "a")).collect()
}

/// The two subjects of a prompt, with article and colour: what stands around the first " and ", or
/// else around the first " with ". A third part is left out. `None`: the prompt has neither word.
pub fn split(prompt: &str) -> Option<[String; 2]> {
    let word = [" and ", " with "].into_iter().find(|word| prompt.contains(word))?;
    let mut parts = prompt.split(word);
    Some([parts.next()?.to_owned(), parts.next()?.to_owned()])
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_templates_are_those_of_the_original() {
        // SHA-256 of the original's 80 sentences, filled, sorted and joined by line feeds.
        for (prompt, expected) in [
            ("{}", "a8a4822f2921936e2ef07cf2e7a5df69be9532aab2f3f4880156bb03563e2467"),
            (
                "a cat and a frog",
                "623505db1ce6e834cfadad0218ea0ead60d56f4dd8188161a77add8b1f90fdac",
            ),
        ] {
            let mut all = filled(prompt);
            assert_eq!(all.len(), TEMPLATES);
            all.sort();
            let digest = Sha256::digest(all.join("\n"));
            let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, expected, "{prompt}");
        }
    }

    #[test]
    fn articles_are_mended_by_letters() {
        let all = filled("a cat and a frog");
        for text in [
            "a bad photo of a cat and a frog.",
            "a photo of many a cat and a frog.",
            "itap of my a cat and a frog.",
            "a plastic a cat and a frog.",
            "a cat and a frog in a video game.",
            "a photo of a nice a cat and a frog.",
        ] {
            assert!(all.iter().any(|filled| filled == text), "{text}");
        }
        assert!(filled("a banana and a cat")[0].contains("a bananand a cat"));
        // The first replacement makes what the second one finds: "the a a" to "the a" to "a".
        let doubled = filled("a a cat");
        assert!(doubled.iter().any(|text| text == "art of a cat."));
        assert!(doubled.iter().any(|text| text == "art of a a cat."));
    }

    #[test]
    fn prompts_are_split_at_the_first_of_two_words() {
        let parts = |prompt| split(prompt).map(|[one, two]| format!("{one}|{two}"));
        for (prompt, expected) in [
            ("a cat and a purple bowl", Some("a cat|a purple bowl")),
            ("a bear with a crown", Some("a bear|a crown")),
            ("a cat with a hat and a dog", Some("a cat with a hat|a dog")),
            ("a cat and a dog and a bird", Some("a cat|a dog")),
            ("a cat", None),
            ("a panda", None),
            ("a cat and", None),
            (" and ", Some("|")),
        ] {
            assert_eq!(parts(prompt).as_deref(), expected, "{prompt}");
        }
    }
}
