//! The labels of a head, in the fields of any family.

use serde_json::{Map, Value};

use super::fields::Fields;

/// The number of labels: `num_labels`, or the number of names under `id2label`, or 2. The names stay among the fields that
/// are kept.
pub(crate) fn read(fields: &mut Fields<'_>) -> usize {
    let stated = fields.size("num_labels");
    let names = match fields.value("id2label") {
        None => None,
        Some(Value::Object(names)) => Some(names),
        Some(other) => {
            fields.refuse(format!("`id2label` is {other}, expected an object"));
            None
        }
    };
    fields.keep("id2label");
    let named = names.map(Map::len);
    if let Some(names) = names {
        let numbers = (0..names.len()).map(|index| index.to_string());
        let nameless: Vec<String> = numbers.filter(|at| !names.contains_key(at)).collect();
        if !nameless.is_empty() {
            let (count, nameless) = (names.len(), nameless.join(", "));
            fields.refuse(format!(
                "`id2label` has {count} names, but none for {nameless}"
            ));
        }
    }
    match (stated, named) {
        (Some(stated), Some(named)) if stated != named => fields.refuse(format!(
            "`num_labels` is {stated}, but `id2label` has {named} names"
        )),
        (Some(0), _) | (None, Some(0)) => fields.refuse("a head without labels"),
        _ => {}
    }
    stated.or(named).unwrap_or(2)
}

/// Names as many labels as there are, unless the file does: Transformers takes the number from the names.
pub(crate) fn write(map: &mut Map<String, Value>, num_labels: usize) {
    map.remove("num_labels");
    let names = map.get("id2label").and_then(Value::as_object);
    if names.is_some_and(|names| names.len() == num_labels) {
        return;
    }
    let name = |index: usize| format!("LABEL_{index}");
    let by_index: Map<String, Value> = (0..num_labels)
        .map(|index| (index.to_string(), name(index).into()))
        .collect();
    let by_name: Map<String, Value> = (0..num_labels)
        .map(|index| (name(index), index.into()))
        .collect();
    map.insert("id2label".into(), by_index.into());
    map.insert("label2id".into(), by_name.into());
}
