//! BLIP's words: BERT's word pieces, from `vocab.txt` or `tokenizer.json`.

use std::path::PathBuf;

use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer, decoders};

use crate::error::{Error, Result};
use crate::folder::Folder;

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

pub(super) struct Words {
    inner: Tokenizer,
    folder: PathBuf,
}

impl Words {
    pub(super) fn load(folder: &Folder) -> Result<Self> {
        let path = folder.path().to_owned();
        let wrong = |message: String| Error::Tokenizer { path: path.clone(), message };
        if !folder.has("vocab.txt") && folder.has("tokenizer.json") {
            let inner = Tokenizer::from_bytes(folder.bytes("tokenizer.json")?);
            return Ok(Self { inner: inner.map_err(|e| wrong(e.to_string()))?, folder: path });
        }
        let text = String::from_utf8(folder.bytes("vocab.txt")?)
            .map_err(|e| wrong(format!("`vocab.txt`: {e}")))?;
        let pieces = text.lines().zip(0..).map(|(piece, id)| (piece.to_owned(), id));
        let model = WordPiece::builder()
            .vocab(pieces.collect::<ahash::AHashMap<_, _>>())
            .unk_token("[UNK]".into())
            .build()
            .map_err(|e| wrong(e.to_string()))?;
        let mut inner = Tokenizer::new(model);
        let library = |e: tokenizers::Error| wrong(e.to_string());
        inner.with_normalizer(Some(BertNormalizer::default())).map_err(library)?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        inner.with_decoder(Some(decoders::wordpiece::WordPiece::default()));
        let known = SPECIAL.into_iter().filter(|token| inner.token_to_id(token).is_some());
        let special: Vec<_> = known.map(|token| AddedToken::from(token, true)).collect();
        inner.add_special_tokens(special).map_err(library)?;
        Ok(Self { inner, folder: path })
    }

    /// Ids of the pieces of a text, without special tokens.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = self.inner.encode(text, false).map_err(|e| self.failed(e))?;
        Ok(encoded.get_ids().to_vec())
    }

    /// The text of ids; special tokens and ids without a piece are left out.
    pub(super) fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: tokenizers::Error) -> Error {
        Error::Tokenizer { path: self.folder.clone(), message: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_into_pieces_and_joined_again() {
        let folder = tempfile::tempdir().unwrap();
        let vocab = "[PAD]\n[UNK]\n[SEP]\na\ncat\n##s\n,\nand\n";
        std::fs::write(folder.path().join("vocab.txt"), vocab).unwrap();
        let words = Words::load(&Folder::at(folder.path())).unwrap();
        assert_eq!(words.encode(" A cats, and dog").unwrap(), [3, 4, 5, 6, 7, 1]);
        assert_eq!(words.decode(&[999, 3, 4, 5, 6, 7, 3, 4, 2, 0]).unwrap(), "a cats, and a cat");
        std::fs::remove_file(folder.path().join("vocab.txt")).unwrap();
        let error = Words::load(&Folder::at(folder.path())).err().unwrap();
        assert!(error.to_string().contains("vocab.txt"), "{error}");
        std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
        let error = Words::load(&Folder::at(folder.path())).err().unwrap();
        assert!(matches!(error, Error::Tokenizer { .. }), "{error:?}");
    }
}
