//! `/v1/subjects`: what would be found in a prompt, for whoever wants to correct it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use excite_jobs::api::{PromptWord, Prompted, SubjectsRequest, WarningView};
use excite_jobs::limits;
use excite_prompt::{Doubt, Word, find_subjects};

use super::App;
use super::extract::Document;
use super::openapi::Problems;
use super::problem::Fault;

/// The subjects that would be found in a prompt, and its words.
#[utoipa::path(
    post,
    path = "/v1/subjects",
    tag = "batches",
    operation_id = "findSubjects",
    request_body(content = SubjectsRequest, example = json!({"prompt": "a cat and a frog"})),
    responses((status = 200, description = "What was found.", body = Prompted), Problems)
)]
pub(super) async fn subjects(
    State(app): State<Arc<App>>,
    Document(request): Document<SubjectsRequest>,
) -> Result<Json<Prompted>, Fault> {
    let prompt = request.prompt;
    if prompt.trim().is_empty() || prompt.len() > limits::PROMPT_BYTES_MAX {
        let detail = format!("`prompt` has {} bytes", prompt.len());
        let remedy = format!("Use 1 to {} bytes.", limits::PROMPT_BYTES_MAX);
        return Err(Fault::refused("prompt", detail, remedy));
    }
    let encoding = app.accept.tokenizer().encode(&prompt);
    let encoding =
        encoding.map_err(|e| Fault::refused("prompt", e.to_string(), "Use plain text."))?;
    let found = find_subjects(&encoding);
    let guess = |doubt: &Doubt| matches!(doubt, Doubt::Guessed { .. } | Doubt::Unclear { .. });
    let unsure = found.doubts.iter().any(guess);
    let word = |word: &Word| PromptWord {
        word: word.text.clone(),
        indices: word.tokens.clone().map(|index| index as u32).collect(),
        start: utf16(&prompt[..word.span.start]),
        end: utf16(&prompt[..word.span.end]),
    };
    let words = encoding.words.iter().map(word).collect();
    let warning =
        |doubt: &Doubt| WarningView { code: doubt.code().to_owned(), message: doubt.to_string() };
    Ok(Json(Prompted {
        subjects: found.subjects.into_iter().map(|found| found.subject).collect(),
        unsure,
        words,
        warnings: found.doubts.iter().map(warning).collect(),
    }))
}

/// As scripts count characters.
fn utf16(text: &str) -> usize {
    text.encode_utf16().count()
}
