// The texts of the canvas in the language of the front end. English stands in the code; locales/<language>/main.json has
// the others, by the English text.

let texts = {};

/** Only says that a text of a table is shown, and so translated, somewhere else: `t` looks it up there. */
export const mark = (text) => text;

/** A text in the person's language, with the values of its {placeholders}; English where nobody has translated it. */
export function t(text, values = {}) {
  const found = Object.hasOwn(texts, text) ? texts[text] : text;
  return found.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}

/** The language that the person has chosen, or the browser's own, as ComfyUI's front end finds it. */
async function chosenLanguage(api) {
  const response = await api.fetchApi("/settings/Comfy.Locale");
  const chosen = response.ok ? await response.json() : null;
  return chosen || navigator.language.split("-")[0];
}

async function fetchTexts(api) {
  try {
    const [language, response] = await Promise.all([chosenLanguage(api), api.fetchApi("/i18n")]);
    const ours = (await response.json())[language] ?? {};
    texts = ours.stagecraft?.layoutCanvas ?? {};
    return ours;
  } catch {
    return {}; // English is better than no canvas
  }
}

let fetched = null;

/**
 * Fetches the texts, once for the page, before anything is shown: all that node packs say in the person's language, as
 * in locales/<language>/main.json with nodeDefs.
 */
export function loadTexts(api) {
  fetched ??= fetchTexts(api);
  return fetched;
}
