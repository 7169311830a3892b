"""The pages of reports, as Jinja templates.

They are Python, because Flower ships no other files with an app.
"""

PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{% block title %}{% endblock %}</title>
<style>
:root { color-scheme: light dark; --ink: #1c1d20; --soft: #5f636b; --line: #d9dce1; --card: #f5f6f8; --accent: #0a5fb4; --page: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e9ec; --soft: #a2a7b0; --line: #3a3e46; --card: #22252b; --accent: #7ab8ff; --page: #17191d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { max-width: 46rem; margin: .5rem 0; }
.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.control td { color: var(--soft); }
figure { margin: 1rem 0 2rem; }
figure img { max-width: 100%; background: #fff; border-radius: 6px; image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .92rem; }
code { font-size: .9em; background: var(--card); padding: .1em .3em; border-radius: 4px; }
svg { width: 100%; max-width: 46rem; height: auto; display: block; margin: .6rem 0 1rem; font: 14px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg text.soft { fill: var(--soft); }
svg .bar { fill: var(--accent); opacity: .75; }
svg .dot { fill: var(--accent); opacity: .55; }
svg .whisker { stroke: var(--ink); stroke-width: 2; }
svg .mean { stroke: var(--ink); stroke-width: 2.5; }
svg .axis { stroke: var(--line); fill: none; }
svg .mark { stroke: var(--soft); stroke-dasharray: 3 4; }
svg .curve { fill: none; stroke-width: 2.2; }
svg .curve0 { stroke: var(--accent); } svg .curve1 { stroke: #d0681c; } svg .curve2 { stroke: #2f9461; } svg .curve3 { stroke: #a34fb0; }
svg .label { stroke: none; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; max-width: 52rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .5rem; } }
@media print { body { max-width: none; padding: 0; } section, figure { break-inside: avoid; } }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .88rem; }
</style>
</head>
<body>
<header>
{% block header %}{% endblock %}
</header>
<main>
{% block content %}{% endblock %}
</main>
<footer>
<p>{% block made %}{% endblock %} fedenc {{ facts.versions.fedenc }}{% if facts.commit %}, commit {{ facts.commit[:12] }}{{ "-dirty" if facts.commit.endswith("-dirty") }}{% endif %}; Python {{ facts.versions.python }}, torch {{ facts.versions.torch }}; {{ facts.hardware.cpu }}, {{ facts.hardware.cores }} cores{% for gpu in facts.hardware.gpus %}, {{ gpu }}{% endfor %}.</p>
</footer>
</body>
</html>
"""

LEAKAGE = """\
{% macro table(done, columns, controls, others=()) %}
<div class="wide"><table>
<thead><tr><th>attack</th><th>knows</th><th class="number">images</th>
{% for _, heading, _, _ in columns %}<th class="number">{{ heading }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in done %}
<tr><td>{{ row.attack }}</td><td>{{ row.knowledge | join(", ") or "uploads alone" }}</td><td class="number">{{ row.targets }}</td>
{% for field, _, kind, _ in columns %}<td class="number">{{ with_interval(row, field, kind) }}</td>{% endfor %}</tr>
{% endfor %}
{% for name, control in controls.items() %}
<tr class="control"><td>no attack</td><td>{{ {"ciphertext": "the protected image", "constant": "the mean image", "another": "another image", "another key": "another key"}[name] }}</td><td></td>
{% for field, _, kind, _ in columns %}<td class="number">{{ with_interval(control, field, kind) }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
<p class="soft">Means over images{% if done and done[0].get("ssim_gaussian11_low") is not none and done[0].get("ssim_gaussian11_low") %} with 95&nbsp;% intervals{% endif %}.
{% for _, heading, _, meaning in columns %}{{ heading }}: {{ meaning }}{{ ". " if loop.last else "; " }}{% endfor %}
SSIM is of RGB, with the Gaussian 11×11 window.</p>
{% if others %}
<div class="wide"><table><thead><tr><th>attack</th><th>status</th><th>reason</th></tr></thead><tbody>
{% for row in others %}<tr><td>{{ row.attack }}</td><td>{{ row.status }}</td><td>{{ row.reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% endmacro %}
"""

ATTACKS = """\
{% extends "page.html" %}
{% import "leakage.html" as leakage with context %}
{% block title %}Attacks: {{ facts.title }}{% endblock %}
{% block header %}
<h1>What attackers make of it</h1>
<p class="soft">{{ facts.title }}; {{ facts.images }} uploads of {{ facts.owners }} owners.</p>
{% endblock %}
{% block content %}
<p>Each attack sees the uploads, all that is public about the method, and what the second column names;
the truth is used only to score it. The grey lines are no attacks but what an estimate scores without
one: the protected image itself, the mean of other images, and another image. An attack that is no
better than these shows nothing.</p>
{{ leakage.table(done, columns, controls) }}
<p class="soft">{% if facts.recognised_plain is not none %}Of the plain images themselves the classifier recognises {{ facts.recognised_plain | shown("share") }}.{% endif %}
All other measures are in <code>attacks.json</code> and, image by image, in <code>attacks.parquet</code>.</p>
{% for row in done if row.attack in pictures %}
<figure><h3>{{ row.attack }}</h3><img src="{{ pictures[row.attack] }}" alt="Plain, protected and estimated images of {{ row.attack }}">
<figcaption>{{ row.source }}</figcaption></figure>
{% endfor %}
{% if others %}
<h2>Not scored</h2>
<div class="wide"><table><thead><tr><th>attack</th><th>status</th><th>reason</th></tr></thead><tbody>
{% for row in others %}<tr><td>{{ row.attack }}</td><td>{{ row.status }}</td><td>{{ row.reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% endblock %}
{% block made %}Written by <code>fedenc attack</code>.{% endblock %}
"""

RUN = """\
{% extends "page.html" %}
{% import "leakage.html" as leakage with context %}
{% block title %}Run {{ facts.name }}{% endblock %}
{% block header %}
<h1>Can a server learn from images that it cannot see?</h1>
<p class="soft">Run <b>{{ facts.name }}</b>: {{ facts.clients.requested }} owners of {{ facts.scenario.data.name }}, protection {{ facts.protection.text }}.</p>
{% endblock %}
{% block content %}
{% for warning in facts.warnings %}<p><b>Warning:</b> {{ warning }}</p>{% endfor %}
<section>
<h2>Accuracy by kind of query</h2>
{% if facts.accuracy %}
{{ accuracy }}
<p class="soft">Bars with 95&nbsp;% intervals (Wilson) over test images.</p>
{% for stage, model in models.items() if model.agreement.pairs %}
<p>{% if models | length > 1 %}Input <b>{{ stage }}</b>: {% endif %}{{ model.agreement.plain_vs_encrypted | shown("share") }} of {{ model.agreement.pairs }} images got the same answer plain and encrypted.
{{ model.agreement.right_only_plain }} were recognised only plain and {{ model.agreement.right_only_encrypted }} only encrypted{% if model.agreement.right_only_plain == model.agreement.right_only_encrypted %}: no difference{% elif model.agreement.p_value < 0.05 %}: one form is recognised more often (McNemar's exact test, p = {{ "%.2g" | format(model.agreement.p_value) }}){% else %}: a difference that chance explains (McNemar's exact test, p = {{ "%.2g" | format(model.agreement.p_value) }}){% endif %}.</p>
{% endfor %}
{% else %}<p>Nobody's queries were answered.</p>{% endif %}
</section>
{% if observer %}
<section>
<h2>What an uploaded image looks like</h2>
<figure><img src="{{ observer }}" alt="Uploads: plain, protected, and as anyone sees them without a key">
<figcaption>Above what an owner has, in the middle what it uploads, below what anyone makes of that without any key.</figcaption></figure>
</section>
{% endif %}
{% if leaks %}
<section>
<h2>What leaks</h2>
<p>The quick attacks on {{ leaks.images }} uploads, with what each attacker knows. The grey lines took no attack. <code>fedenc attack</code> runs all others.</p>
{{ leakage.table(done, columns, controls, others) }}
</section>
{% endif %}
<section>
<h2>Participants</h2>
{% if facts.training %}<p>{{ facts.clients.uploaded }} of {{ facts.clients.requested }} uploaded {{ "{:,}".format(facts.upload.images) }} images, {{ "%.1f" | format(facts.upload.bytes / 1e6) }} MB{% if facts.clients.plain %}; {{ facts.clients.plain }} of them uploaded plain images{% endif %}.</p>{% endif %}
{% if facts.clients.failed %}
<div class="wide"><table><thead><tr><th>participant</th><th>phase</th><th>why it failed</th></tr></thead><tbody>
{% for one in facts.clients.failed[:50] %}<tr><td>{{ one.id }}</td><td>{{ one.phase }}</td><td>{{ one.reason }}</td></tr>
{% endfor %}
</tbody></table></div>
{% else %}<p>Nobody failed.</p>{% endif %}
{% if facts.accuracy %}
<h3>Accuracy of each participant</h3>
{{ owners }}
<p class="soft">A dot is a participant's accuracy on its own queries; the line is their mean.</p>
{% endif %}
</section>
{% if facts.training %}
<section>
<h2>Training</h2>
{{ curves }}
{% for stage, picture in filters.items() %}
<figure><img src="{{ picture }}" alt="Filters of the first convolution, input {{ stage }}">
<figcaption>Filters of the first convolution{% if filters | length > 1 %}, input {{ stage }}{% endif %}.</figcaption></figure>
{% endfor %}
</section>
{% endif %}
{% if facts.get("baselines") %}
<section><h2>Baselines</h2>
<p>Trained on the same plain images all together: {{ facts.baselines.central_plain | shown("share") }}.{% if facts.baselines.alone.owners %} Each owner alone: {{ facts.baselines.alone.mean | shown("share") }} in the mean over {{ facts.baselines.alone.owners }} owners.{% endif %}</p></section>
{% endif %}
<section>
<h2>Where the time went</h2>
{{ time }}
</section>
<section>
<h2>How to run it again</h2>
<dl>
{% if facts.command %}<dt>command</dt><dd><code>{{ facts.command }}</code></dd>{% endif %}
<dt>scenario</dt><dd>{{ facts.scenario_hash }}</dd>
<dt>seed</dt><dd>{{ facts.scenario.seed }}</dd>
{% for stage, model in models.items() %}<dt>model {{ stage }}</dt><dd>{{ model.model.name }}, weights {{ model.model.sha256 }}{% if model.model.precision %}, trained in {{ model.model.precision }}{% endif %}{% if model.training %}, {{ model.training.epochs }} epochs on {{ model.training.device }}{% endif %}</dd>{% endfor %}
</dl>
</section>
{% endblock %}
{% block made %}Written by <code>fedenc simulate</code>.{% endblock %}
"""

STUDY = """\
{% extends "page.html" %}
{% block title %}Study {{ facts.name }}{% endblock %}
{% block header %}
<h1>{{ facts.question }}</h1>
<p class="soft">Study <b>{{ facts.name }}</b>: {{ facts.runs.finished }} of {{ facts.runs.planned }} runs.</p>
{% endblock %}
{% block content %}
{% for title, plot in plots.items() %}
<figure><img src="{{ plot }}" alt="{{ title }}" style="image-rendering: auto"><figcaption>{{ title }}; means over seeds with 95&nbsp;% intervals (Student's; of the queries where there is one seed).</figcaption></figure>
{% endfor %}
<h2>Accuracy</h2>
<div class="wide"><table><thead><tr>
{% set names = facts.columns + ["input", "asker", "condition"] %}
{% for name in names %}<th>{{ name }}</th>{% endfor %}<th class="number">accuracy</th><th class="number">95&nbsp;%</th><th class="number">seeds</th></tr></thead><tbody>
{% for line in facts.summary %}
<tr>{% for name in names %}<td>{{ line[name] }}</td>{% endfor %}<td class="number">{{ line.accuracy | shown("share") }}{% if line.deviation is not none %} ± {{ "%.1f" | format(100 * line.deviation) }}{% endif %}</td><td class="number">{% if line.half is not none %}{{ "%.1f to %.1f" | format(100 * (line.accuracy - line.half), 100 * (line.accuracy + line.half)) }}{% endif %}</td><td class="number">{{ line.seeds }}</td></tr>
{% endfor %}
</tbody></table></div>
<p class="soft">± is the sample deviation over seeds, 95&nbsp;% Student's interval of the mean. Every row of every run is in <code>study.parquet</code>.</p>
{% include "failed.html" %}
{% endblock %}
{% block made %}Written by <code>fedenc study</code>.{% endblock %}
"""

FAILED = """\
{% if facts.failed %}
<h2>What failed</h2>
<div class="wide"><table><thead><tr><th>run</th><th>status</th><th>reason</th></tr></thead><tbody>
{% for one in facts.failed %}<tr><td>{{ one.run }}</td><td>{{ one.status }}</td><td>{{ one.reason or "" }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
"""

PAPER = """\
{% extends "page.html" %}
{% block title %}{{ facts.paper }}, reproduced{% endblock %}
{% block header %}
<h1>{{ facts.reference }}</h1>
<p class="soft">Its tables and figures, from runs of fedenc{% if facts.scale != 1 %}, at {{ facts.scale }} of the images and of the epochs{% endif %}.</p>
{% if facts.exhibits | selectattr("settings") | list %}
<p><b>These runs are not the paper's: they show that everything works, and prove nothing about what it reports.</b> Every setting that differs is named below the exhibit.</p>
{% endif %}
{% endblock %}
{% block content %}
{% if facts.deviations %}
<h2>What differs from the paper everywhere</h2>
<ul>{% for text in facts.deviations %}<li>{{ text }}</li>{% endfor %}</ul>
{% endif %}
{% for one in facts.exhibits %}
<h2>{{ one.name[0] | upper }}{{ one.name[1:] }}</h2>
<p>{{ one.caption }} <span class="soft">({{ one.finished }} of {{ one.runs }} runs finished)</span></p>
{% for figure in one.figures if figure.path in figures %}
<figure><img src="{{ figures[figure.path] }}" alt="{{ figure.title or one.caption }}" style="image-rendering: auto">{% if figure.title %}<figcaption>{{ figure.title }}</figcaption>{% endif %}</figure>
{% endfor %}
{% if one.lines %}
<div class="wide"><table><thead><tr>
{% for name in one.lines[0].labels %}<th>{{ name }}</th>{% endfor %}<th>measure</th>{% for name in headings(one) %}<th class="number">{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for line in one.lines %}
<tr>{% for value in line.labels.values() %}<td>{{ value }}</td>{% endfor %}<td>{{ line.measure }}</td>{% for name in headings(one) %}<td class="number">{{ cells(line)[name] }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if one.deviations or one.settings %}
<details{% if one.settings %} open{% endif %}><summary>What differs from the paper here</summary>
<ul>{% for text in one.deviations %}<li>{{ text }}</li>{% endfor %}{% for text in one.settings %}<li><code>{{ text }}</code></li>{% endfor %}</ul></details>
{% endif %}
{% endfor %}
<p class="soft">Accuracies are in per cent. ± is the sample standard deviation over seeds; intervals are Student's over seeds, or Wilson's over test images where there is one seed. A difference stands only where the settings that it depends on are the published ones.</p>
{% include "failed.html" %}
{% endblock %}
{% block made %}{% if facts.command %}Made by <code>{{ facts.command }}</code>.{% endif %}{% endblock %}
"""

TEMPLATES = {
    "page.html": PAGE,
    "leakage.html": LEAKAGE,
    "attacks.html": ATTACKS,
    "run.html": RUN,
    "study.html": STUDY,
    "paper.html": PAPER,
    "failed.html": FAILED,
}
