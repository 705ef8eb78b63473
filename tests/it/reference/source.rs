//! Types as the source text documents them: names, doc comments, fields and variants.
//!
//! Knows Rust and serde's names, and nothing about what the types are for.

use std::collections::BTreeMap;
use std::path::Path;
use syn::{Attribute, Expr, Fields, Item, Lit, Meta, Type};

/// A struct, an enum, or one of their members.
pub(super) struct Documented {
    /// As serde writes it.
    pub(super) name: String,
    /// The doc comment; paragraphs are separate lines.
    pub(super) doc: String,
    /// The type of a field or of a variant with one value; `None` for other variants and for types.
    pub(super) value: Option<Type>,
    /// Whether serde fills in a default where it is absent.
    pub(super) has_default: bool,
    /// Fields or variants.
    pub(super) members: Vec<Documented>,
}

impl Documented {
    /// Whether this is an enum of which some variants are mere names.
    pub(super) fn is_choice(&self) -> bool {
        self.members.iter().any(Self::is_name)
    }

    /// Whether this is a variant that is a mere name.
    pub(super) fn is_name(&self) -> bool {
        self.value.is_none() && self.members.is_empty()
    }
}

/// The types that some source files define, by name.
#[derive(Default)]
pub(super) struct Types(BTreeMap<String, Documented>);

impl Types {
    /// Reads files by their names below `src`.
    pub(super) fn read(names: &[&str]) -> Self {
        let mut types = Self::default();
        for name in names {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(name);
            let file = syn::parse_file(&std::fs::read_to_string(path).unwrap()).unwrap();
            for item in file.items {
                let (ident, found) = match item {
                    Item::Struct(item) => {
                        (item.ident, documented(String::new(), &item.attrs, &item.fields, None))
                    }
                    Item::Enum(item) => {
                        let mut found = documented(String::new(), &item.attrs, &Fields::Unit, None);
                        let case = serde(&item.attrs, "rename_all");
                        let variants = item.variants.iter();
                        let variants = variants.filter(|v| serde(&v.attrs, "other").is_none());
                        found.members = variants
                            .map(|variant| {
                                let name = renamed(&variant.ident.to_string(), case.as_deref());
                                documented(name, &variant.attrs, &variant.fields, None)
                            })
                            .collect();
                        (item.ident, found)
                    }
                    _ => continue,
                };
                types.0.insert(ident.to_string(), found);
            }
        }
        types
    }

    /// The type called `name`, if one of the files defines it.
    pub(super) fn find(&self, name: &str) -> Option<&Documented> {
        self.0.get(name)
    }
}

fn documented(
    name: String,
    attributes: &[Attribute],
    fields: &Fields,
    value: Option<Type>,
) -> Documented {
    let mut found = Documented {
        name,
        doc: doc(attributes),
        value,
        has_default: serde(attributes, "default").is_some(),
        members: Vec::new(),
    };
    match fields {
        Fields::Named(fields) => {
            let fields = fields.named.iter();
            let fields = fields.filter(|field| serde(&field.attrs, "skip").is_none());
            found.members = fields
                .map(|field| {
                    let name = field.ident.as_ref().unwrap().to_string();
                    documented(name, &field.attrs, &Fields::Unit, Some(field.ty.clone()))
                })
                .collect();
        }
        Fields::Unnamed(fields) => found.value = Some(fields.unnamed[0].ty.clone()),
        Fields::Unit => {}
    }
    found
}

fn doc(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        let Meta::NameValue(pair) = &attribute.meta else { continue };
        let Expr::Lit(literal) = &pair.value else { continue };
        let Lit::Str(line) = &literal.lit else { continue };
        let line = line.value();
        let is_first = text.is_empty() || text.ends_with('\n');
        text.push_str(match line.trim() {
            "" => "\n",
            _ if is_first => "",
            _ => " ",
        });
        text.push_str(line.trim());
    }
    text
}

/// The value of `key` in the serde attributes; empty where the key stands alone.
fn serde(attributes: &[Attribute], key: &str) -> Option<String> {
    let mut found = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        attribute
            .parse_nested_meta(|meta| {
                let value = match meta.value() {
                    Ok(value) => value.parse::<syn::LitStr>()?.value(),
                    Err(_) => String::new(),
                };
                if meta.path.is_ident(key) {
                    found = Some(value);
                }
                Ok(())
            })
            .unwrap();
    }
    found
}

/// The name of a variant as serde writes it with `rename_all = "case"`.
fn renamed(name: &str, case: Option<&str>) -> String {
    let separator = match case {
        None => return name.to_owned(),
        Some("lowercase") => "",
        Some("snake_case") => "_",
        Some("kebab-case") => "-",
        Some(other) => panic!("`rename_all = \"{other}\"` is not known here"),
    };
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push_str(separator);
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// The last name of a type and the types in its angle brackets; an array is a `Vec`.
pub(super) fn parts(value: &Type) -> (String, Vec<&Type>) {
    if let Type::Array(array) = value {
        return ("Vec".to_owned(), vec![&array.elem]);
    }
    let Type::Path(path) = value else { panic!("only named types are documented") };
    let last = path.path.segments.last().unwrap();
    let mut inner = Vec::new();
    if let syn::PathArguments::AngleBracketed(arguments) = &last.arguments {
        for argument in &arguments.args {
            if let syn::GenericArgument::Type(argument) = argument {
                inner.push(argument);
            }
        }
    }
    (last.ident.to_string(), inner)
}
