use burn_lora::data::{ChatTemplate, Message};
use proptest::prelude::*;
use serde_json::Map;

use crate::{config, edited, edits, is_readable};

const TEMPLATES: [&str; 2] = [
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
     {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "{%- set ns = namespace(found=false) -%}{%- macro turn(m) -%}[{{ m.role }}] {{ m.content | trim }}{%- endmacro -%}\
     {% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}\
     {{ turn(m) }}{{ eos_token }}{% endgeneration %}{% else %}{{ turn(m) }}{% endif %}{% endfor %}",
];

const WORDS: &[&str] = &[
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "#}",
    "-%}",
    "{% if",
    "{% endif %}",
    "{% for x in messages %}",
    "{% endfor %}",
    "|",
    "| tojson",
    "| length",
    "+",
    "[0]",
    "[-1]",
    "['role']",
    ".content",
    "raise_exception('no')",
    "strftime_now('%Y')",
    "namespace()",
    "\"",
    "'",
    "loop.index0",
    "messages",
    "{% set",
    "{% generation %}",
    "{% endgeneration %}",
    "none",
    "~",
    "range(3)",
];

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn damaged_templates_render_or_are_refused(which in 0..TEMPLATES.len(), edits in edits(WORDS)) {
        let bytes = edited(TEMPLATES[which].as_bytes(), &edits);
        let text = String::from_utf8_lossy(&bytes);
        let tokens = Map::from_iter([("eos_token".to_string(), "</s>".into())]);
        let messages = [
            Message::new("system", "be brief"),
            Message::new("user", "q"),
            Message::new("assistant", "a"),
        ];
        let rendered = ChatTemplate::new(&text, tokens)
            .and_then(|template| template.render(&messages, None, true));
        if let Err(error) = rendered {
            prop_assert!(is_readable(&error), "{error}");
        }
    }
}

#[test]
fn the_whole_templates_render() {
    for text in TEMPLATES {
        let template = ChatTemplate::new(text, Map::new()).unwrap();
        let rendered = template
            .render(&[Message::new("assistant", "a")], None, true)
            .unwrap();
        assert!(rendered.text.contains('a'));
    }
}
