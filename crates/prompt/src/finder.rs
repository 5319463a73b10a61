//! The subjects of a prompt, when nobody named them: a small lexicon and the paper's forms.
//!
//! A prompt is cut at conjunctions, prepositions and punctuation. A part that begins with an
//! article or a number names something: the last known noun in it, else its last word that is no
//! adjective. A part without one counts only if it holds a known noun.

use crate::subject::{MAX_SUBJECTS, Subject};
use crate::tokenizer::{Encoding, Word};

const BREAKS: &str = "and with in on at of near under over by next to from into onto beside behind \
    between above below inside outside around for wearing holding riding sitting standing eating \
    playing looking lying running flying or without through while that which is are as";
const DETERMINERS: &str = "a an the one two three four five six seven eight nine ten some many \
    several his her its their my your our this that these those";
const ADJECTIVES: &str = "red orange yellow green blue purple pink brown gray grey black white gold \
    golden silver big small large little tiny huge giant tall short long old young new ancient \
    modern cute beautiful pretty ugly happy sad angry fluffy furry shiny dark bright light heavy \
    wooden metal plastic glass stone leather round square striped spotted colorful colourful fat \
    thin hot cold wet dry soft hard fresh ripe wild sleeping smiling very realistic detailed \
    transparent spiky sleepy brave lonely";
const MEDIA: &str = "painting photo photograph picture image drawing sketch illustration portrait \
    rendering render watercolor watercolour close closeup view shot poster group pair bunch piece \
    cup couple front top style";
const NOUNS: &str = "cat dog bird bear lion horse elephant monkey frog turtle rabbit mouse tiger \
    wolf fox deer cow pig sheep goat duck chicken penguin owl eagle fish shark whale dolphin snake \
    lizard crocodile dragon unicorn dinosaur zebra giraffe panda koala kangaroo squirrel hedgehog \
    porcupine raccoon camel donkey bee butterfly spider crab octopus snail swan kitten puppy \
    backpack glasses crown suitcase chair balloon bow car bowl bench clock apple hat sombrero cap \
    helmet scarf shirt dress coat shoe boot bag umbrella book lamp table sofa couch bed desk door \
    window vase cup mug plate bottle knife fork spoon guitar piano violin drum ball kite bicycle \
    bike motorcycle bus truck train boat ship plane airplane helicopter rocket robot computer \
    laptop phone camera television tree flower rose sunflower mushroom cactus mountain river lake \
    beach ocean house castle tower bridge church city street garden forest moon sun star cloud \
    pizza cake banana strawberry lemon grape pear peach cherry bread cheese sandwich burger donut \
    egg carrot tomato man woman boy girl child baby person astronaut king queen knight wizard \
    pirate doctor chef dancer soldier sword shield ring necklace watch box basket candle bell flag \
    key teddy statue fountain";

fn listed(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|entry| entry == word)
}

fn is_noun(word: &str) -> bool {
    let singular = [Some(word), word.strip_suffix('s'), word.strip_suffix("es")];
    singular.into_iter().flatten().any(|word| listed(NOUNS, word))
}

fn is_letters(word: &str) -> bool {
    word.chars().all(char::is_alphabetic)
}

/// At most [`MAX_SUBJECTS`] subjects in the order of the prompt; a word that comes again counts
/// once. Empty if none is found.
pub fn find_subjects(encoding: &Encoding) -> Vec<Subject> {
    let breaks = |word: &Word| listed(BREAKS, &word.text) || !is_letters(&word.text);
    let mut found: Vec<Subject> = Vec::new();
    for part in encoding.words.split(breaks) {
        let Some(word) = head(part) else { continue };
        if found.iter().all(|subject| subject.word != word.text) && found.len() < MAX_SUBJECTS {
            let indices = word.tokens.clone().map(|i| i as u32).collect();
            found.push(Subject { word: word.text.clone(), indices });
        }
    }
    found
}

fn head(part: &[Word]) -> Option<&Word> {
    let determined = part.first().is_some_and(|word| listed(DETERMINERS, &word.text));
    let part = if determined { &part[1..] } else { part };
    if let Some(noun) = part.iter().rfind(|word| is_noun(&word.text)) {
        return Some(noun);
    }
    let last = part.last().filter(|_| determined)?;
    // "an orange" is a thing, "an orange shiny" is not; "a painting" is not what is painted.
    let plain = part.iter().rfind(|word| !listed(ADJECTIVES, &word.text));
    Some(plain.unwrap_or(last)).filter(|word| !listed(MEDIA, &word.text))
}
