// Gives the nodes their texts in the language of the front end, where the front end itself loses them: that of 2025 loads
// its own texts for a language after those of node packs and in their place, and it leaves out what stands in {braces}.
// For newer ones this changes nothing.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { loadTexts } from "./layout_canvas/languages.js";

let [nodes, categories] = [{}, {}];

function translate(definition, { display_name, description, inputs, outputs }) {
  Object.assign(definition, { display_name, description });
  const names = definition.category.split("/");
  definition.category = names.map((name) => categories[name] ?? name).join("/");
  for (const group of Object.values(definition.input ?? {})) {
    for (const [name, [, options]] of Object.entries(group)) {
      if (options?.tooltip && inputs[name]) options.tooltip = inputs[name].tooltip;
    }
  }
  definition.output_tooltips = definition.output_tooltips?.map((tooltip, at) => outputs[at]?.tooltip ?? tooltip);
}

app.registerExtension({
  name: "Stagecraft.TranslatedNodes",
  async init() {
    const { nodeDefs = {}, nodeCategories = {} } = await loadTexts(api);
    [nodes, categories] = [nodeDefs, nodeCategories];
  },
  addCustomNodeDefs(definitions) {
    for (const [name, texts] of Object.entries(nodes)) if (definitions[name]) translate(definitions[name], texts);
  },
  nodeCreated(node) {
    const { inputs, outputs } = nodes[node.comfyClass ?? node.type] ?? {};
    if (!inputs) return;
    for (const widget of node.widgets ?? []) {
      const tooltip = inputs[widget.name]?.tooltip;
      if (tooltip?.includes("{")) widget.tooltip = tooltip;
    }
    node.outputs?.forEach((output, at) => {
      if (outputs[at]) output.localized_name = outputs[at].name;
    });
  },
});
