'use strict';
(() => {
  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const draw = (name, attributes) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };

  // Tables: a press on a head sorts, numbers as numbers, what is none last.
  const value = (row, column) => {
    const text = row.cells[column].textContent.trim();
    const number = parseFloat(text.replace(/^≤ /, ''));
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a === 'number' && typeof b === 'number') return a - b;
    if (typeof a !== typeof b) return typeof a === 'number' ? -1 : 1;
    return a.localeCompare(b);
  };
  for (const table of document.querySelectorAll('table.sortable')) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => {
      const down = head.getAttribute('aria-sort') === 'ascending';
      heads.forEach((other) => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => (down ? -1 : 1) * compare(value(a, column), value(b, column)));
      table.tBodies[0].append(...rows);
    }));
  }

  for (const chart of document.querySelectorAll('.chart')) {
    chart.addEventListener('change', ({ target }) => {
      chart.querySelector(`g[data-line="${target.dataset.line}"]`).toggleAttribute('hidden', !target.checked);
    });
  }
  addEventListener('beforeprint', () => document.querySelectorAll('details').forEach((one) => { one.open = true; }));

  const controls = document.getElementById('controls');
  if (!controls) return;
  const { runs, images, statuses, orders } = JSON.parse(document.getElementById('data').textContent);
  const VIEWS = ['clean', 'adversarial', 'perturbation'];
  const PAGE = 48;
  const byKey = new Map();
  images.forEach((one) => { if (!byKey.has(one.key)) byKey.set(one.key, []); byKey.get(one.key).push(one); });

  const option = (select, text, chosen) => select.append(make('option', { value: chosen }, text));
  option(controls.run, runs.length > 1 ? 'all' : runs[0].name, '');
  if (runs.length > 1) runs.forEach((run, index) => option(controls.run, run.name, index));
  option(controls.status, 'all', '');
  statuses.forEach((name) => option(controls.status, name, name));
  orders.forEach(([text, name]) => option(controls.order, text, name));

  const className = (run, label) => run.classes[label] ?? `class ${label}`;
  const boxes = (found, one, run, view) => {
    const svg = draw('svg', { viewBox: `0 0 ${one.w} ${one.h}`, preserveAspectRatio: 'none', class: view === 'clean' ? 'before' : 'after' });
    for (const [x1, y1, x2, y2, label, score] of found) {
      for (const kind of ['halo', 'line']) {
        const box = draw('rect', { x: x1, y: y1, width: Math.max(x2 - x1, 0), height: Math.max(y2 - y1, 0), class: kind });
        const title = draw('title', {});
        title.textContent = `${className(run, label)} ${score}`;
        box.append(title);
        svg.append(box);
      }
    }
    return svg;
  };

  // A picture is the reduced clean image, and over it exactly the changed pixels.
  const stage = (one, view, said) => {
    const frame = make('span', { class: 'stage', style: `aspect-ratio: ${one.w} / ${one.h}` });
    const picture = (source, style = '') => frame.append(make('img', { src: source, alt: '', style, draggable: 'false' }));
    const shown = one.clean ? view : 'adversarial';
    if (one.base) picture(one.base, shown === 'perturbation' ? 'opacity: .15' : '');
    if (one.over && shown !== 'clean') picture(one.over);
    if (!one.base) frame.append(make('span', { class: 'nothing' }, one.why || 'only in the stored file'));
    if (said && shown !== 'perturbation') {
      const [labels, found] = shown === 'clean' ? [one.labels[0], one.boxes[0]] : [one.labels[1], one.boxes[1]];
      if (labels) picture(labels);
      if (found) frame.append(boxes(found, one, runs[one.run], shown));
    }
    return frame;
  };

  const settings = () => new FormData(controls);
  const tiles = document.getElementById('tiles');
  const more = document.getElementById('more');
  let chosen = [];
  let shownTiles = 0;

  const tile = (one) => {
    const now = settings();
    const view = now.get('view');
    const button = make('button', { type: 'button', class: 'open', 'aria-label': `${one.key}: ${one.status}, ${one.pixels} pixels; enlarge` });
    const show = (which) => button.replaceChildren(stage(one, which, now.has('said')));
    const other = view === 'clean' ? 'adversarial' : 'clean';
    show(view);
    button.addEventListener('pointerenter', (event) => { if (event.pointerType === 'mouse') show(other); });
    button.addEventListener('pointerleave', (event) => { if (event.pointerType === 'mouse') show(view); });
    button.addEventListener('click', () => enlarge(one, view));
    const words = [one.status, `${one.pixels} px`, ...(one.said ? [one.said] : [])].join(', ');
    const caption = make('p', {}, make('strong', {}, one.key), make('br'), words);
    if (runs.length > 1) caption.append(make('br'), runs[one.run].name);
    return make('li', {}, button, caption);
  };
  const append = () => {
    tiles.append(...chosen.slice(shownTiles, shownTiles + PAGE).map(tile));
    shownTiles = Math.min(shownTiles + PAGE, chosen.length);
    more.hidden = shownTiles >= chosen.length;
    document.getElementById('count').textContent = `${chosen.length} of ${images.length} images`;
  };
  const refill = (redraw) => {
    const now = settings();
    const many = redraw ? shownTiles : PAGE;
    chosen = images.filter((one) => (now.get('run') === '' || one.run === Number(now.get('run')))
      && (now.get('status') === '' || one.status === now.get('status'))
      && one.key.toLowerCase().includes(now.get('find').toLowerCase()));
    const [name, way] = now.get('order').split(' ');
    const sign = way === 'down' ? -1 : 1;
    const rank = (one) => (name === 'pixels' ? statuses.indexOf(one.status) : 0);  // broken ones first
    if (name !== 'key') chosen.sort((a, b) => rank(a) - rank(b) || sign * (a[name] - b[name]));
    else chosen.sort((a, b) => a.key.localeCompare(b.key, undefined, { numeric: true }) || a.run - b.run);
    tiles.replaceChildren();
    shownTiles = 0;
    do append(); while (shownTiles < Math.min(many, chosen.length));
  };
  controls.addEventListener('input', ({ target }) => refill(['view', 'said'].includes(target.name)));
  controls.addEventListener('submit', (event) => event.preventDefault());
  more.addEventListener('click', append);

  const large = document.getElementById('large');
  const zoom = document.getElementById('zoom');
  const place = document.getElementById('stage');
  let open = null;
  let view = 'adversarial';
  let said = true;

  const facts = (pairs) => make('dl', { class: 'facts' },
    ...pairs.flatMap(([name, text]) => [make('dt', {}, name), make('dd', {}, String(text))]));
  const paint = () => {
    const frame = stage(open, view, said);
    const times = Number(zoom.value);
    frame.style.width = times ? `${times * open.w}px` : `min(100%, ${(65 * open.w) / open.h}dvh)`;
    place.replaceChildren(frame);
    const found = view === 'perturbation' ? null : open.boxes[view === 'clean' ? 0 : 1];
    const names = (found || []).map((box) => `${className(runs[open.run], box[4])} ${box[5]}`);
    document.getElementById('found').textContent = found ? `found: ${names.join(', ') || 'nothing'}` : '';
    large.querySelectorAll('[data-view]').forEach((one) => one.setAttribute('aria-pressed', one.dataset.view === view));
    large.querySelector('[data-do=said]').setAttribute('aria-pressed', said);
  };
  const describe = () => {
    document.getElementById('name').textContent = open.key;
    const about = document.getElementById('about');
    about.replaceChildren(facts([['run', runs[open.run].name], ['status', open.status], ...open.facts]));
    const aside = make('div');
    if (open.link) aside.append(make('p', {}, make('a', { href: open.link }, 'stored image, exact')));
    open.notes.forEach((note) => aside.append(make('p', { class: 'small' }, note)));
    const legend = (open.classes || []).map((label) => make('li', {},
      make('span', { class: 'swatch', style: `background: ${runs[open.run].colours[label % runs[open.run].colours.length]}` }),
      className(runs[open.run], label)));
    if (legend.length) aside.append(make('ul', { class: 'legend' }, ...legend));
    about.append(aside);
    const others = byKey.get(open.key).filter((one) => one !== open);
    if (others.length) {
      about.append(make('div', {}, make('p', {}, 'the same image in other runs'), make('ul', { class: 'pictures' }, ...others.map((one) => {
        const button = make('button', { type: 'button', class: 'open', 'aria-label': `${runs[one.run].name}: ${one.status}` }, stage(one, view, said));
        button.addEventListener('click', () => enlarge(one, view));
        return make('li', {}, button, make('p', {}, `${runs[one.run].name}: ${one.status}, ${one.pixels} px`));
      }))));
    }
  };
  const enlarge = (one, which) => {
    open = one;
    view = which;
    describe();
    paint();
    if (!large.open) large.showModal();
  };
  const step = (by) => {
    const index = chosen.indexOf(open) + by;
    if (index >= 0 && index < chosen.length) enlarge(chosen[index], view);
  };
  const next = () => { view = VIEWS[(VIEWS.indexOf(view) + 1) % VIEWS.length]; paint(); };
  const toggle = () => { said = !said; paint(); };
  const actions = { close: () => large.close(), said: toggle, before: () => step(-1), after: () => step(1) };
  large.addEventListener('click', ({ target }) => {
    const pressed = target.closest('button');
    if (pressed?.dataset.view) { view = pressed.dataset.view; paint(); }
    if (pressed?.dataset.do) actions[pressed.dataset.do]();
    if (target === large) large.close();
  });
  place.addEventListener('click', next);
  zoom.addEventListener('change', paint);
  large.addEventListener('keydown', (event) => {
    if (event.target === zoom) return;
    const keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ' ': next, 1: () => { [view] = VIEWS; paint(); },
      2: () => { [, view] = VIEWS; paint(); }, 3: () => { [, , view] = VIEWS; paint(); } };
    const scrolls = event.target === place && Number(zoom.value) && event.key.startsWith('Arrow');
    const pressing = event.key === ' ' && event.target.tagName === 'BUTTON';
    if (keys[event.key] && !scrolls && !pressing) { event.preventDefault(); keys[event.key](); }
  });
  refill(false);
})();
