//! How a test points at something on a page: as a person would, by what can be read there.

use std::fmt;

use serde_json::{Value, json};

/// The elements of a kind that can be seen, in the order of the page.
pub(super) const SCRIPT: &str = r"
const [selector, name, text] = arguments;
const tidy = (words) => (words ?? '').replace(/\s+/g, ' ').trim();
const nameOf = (element) => {
  if (element.hasAttribute('aria-label')) return element.getAttribute('aria-label');
  const by = element.getAttribute('aria-labelledby');
  if (by) return by.split(' ').map((id) => document.getElementById(id)?.textContent).join(' ');
  return (element.labels?.[0] ?? element).textContent;
};
const says = (element) => tidy(element.innerText).includes(text);
return [...document.querySelectorAll(selector)].filter((element) =>
  element.checkVisibility({ visibilityProperty: true }) &&
  (name === null || tidy(nameOf(element)) === name) &&
  (text === null || (says(element) && ![...element.children].some(says))));
";

/// What to look for.
#[derive(Debug, Clone)]
pub struct Find {
    selector: String,
    /// The name that assistive technology reads: a button's text, a field's label.
    name: Option<String>,
    /// A part of the text.
    text: Option<String>,
}

impl Find {
    /// Only inside of what a CSS selector finds.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        let each = self.selector.split(", ").map(|inner| format!("{outer} {inner}"));
        self.selector = each.collect::<Vec<_>>().join(", ");
        self
    }

    pub(super) fn arguments(&self) -> Value {
        json!([self.selector, self.name, self.text])
    }

    fn named(selector: &str, name: &str) -> Self {
        Self { selector: selector.into(), name: Some(name.into()), text: None }
    }
}

impl fmt::Display for Find {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.selector)?;
        match (&self.name, &self.text) {
            (Some(words), _) | (_, Some(words)) => write!(f, " “{words}”"),
            _ => Ok(()),
        }
    }
}

/// What a CSS selector finds.
pub fn css(selector: &str) -> Find {
    Find { selector: selector.into(), name: None, text: None }
}

/// A button, or what opens and closes a part of the page.
pub fn button(name: &str) -> Find {
    Find::named("button, summary", name)
}

/// A link.
pub fn link(name: &str) -> Find {
    Find::named("a[href]", name)
}

/// A field by its label; no choice in a row of choices, which looks like a button.
pub fn field(label: &str) -> Find {
    Find::named("input:not([type=radio]), select, textarea", label)
}

/// The smallest part of the page that has a text.
pub fn text(text: &str) -> Find {
    Find { selector: "body *".into(), name: None, text: Some(text.into()) }
}
