"""A headless Chromium, driven through its DevTools pipe; nothing but the browser is needed."""
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from sparse_dense_attacks.cli.report import BROWSERS

__all__ = ['Browser', 'find_browser']

DESK, PHONE = (1280, 900, 1, False), (390, 844, 2, True)  # width, height, density, whether a phone


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """One tab. ``complaints`` are the errors of the console, exceptions, and what could not be loaded."""

    def __init__(self, executable: str):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        hear, self._write = os.pipe()
        self._read, say = os.pipe()

        def wire():  # the browser listens on descriptor 3 and speaks on 4
            low, high = os.dup2(hear, 60), os.dup2(say, 61)
            os.dup2(low, 3)
            os.dup2(high, 4)
        self.process = subprocess.Popen(
            [executable, '--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--remote-debugging-pipe',
             f'--user-data-dir={self.profile.name}'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=wire)  # noqa: PLW1509  no thread of a test runs here
        os.close(hear)
        os.close(say)
        self._numbers, self._rest, self._session, self.events = itertools.count(1), b'', None, []
        target = self.ask('Target.createTarget', url='about:blank')['targetId']
        self._session = self.ask('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.ask(f'{domain}.enable')

    def ask(self, method, **params):
        number = next(self._numbers)
        message = dict(id=number, method=method, params=params)
        if self._session:
            message['sessionId'] = self._session
        os.write(self._write, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._next()
            if answer.get('id') == number:
                assert 'error' not in answer, (method, answer['error'])
                return answer['result']
            self.events.append(answer)

    def _next(self):
        while b'\0' not in self._rest:
            block = os.read(self._read, 2 ** 16)
            assert block, 'the browser has ended'
            self._rest += block
        line, self._rest = self._rest.split(b'\0', 1)
        return json.loads(line)

    def open(self, page: Path, screen=DESK, dark=False):
        """Show a file and wait until all of it is there."""
        width, height, density, phone = screen
        self.ask('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=density, mobile=phone)
        self.ask('Emulation.setTouchEmulationEnabled', enabled=phone)
        self.ask('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value='dark' if dark else 'light')])
        self.events.clear()
        self.ask('Page.navigate', url=page.resolve().as_uri())
        while not any(one.get('method') == 'Page.loadEventFired' for one in self.events):
            self.events.append(self._next())

    def run(self, script):
        """The value of an expression."""
        found = self.ask('Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True)
        assert 'exceptionDetails' not in found, found['exceptionDetails']
        return found['result'].get('value')

    def press(self, key, code=0, text=''):
        for kind in ('keyDown', 'keyUp'):
            self.ask('Input.dispatchKeyEvent', type=kind, key=key, windowsVirtualKeyCode=code,
                     **({'text': text} if text and kind == 'keyDown' else {}))

    def middle(self, selector):
        return self.run(f'(() => {{ const one = document.querySelector({json.dumps(selector)});'
                        'one.scrollIntoView({block: "center"}); const b = one.getBoundingClientRect();'
                        'return [b.x + b.width / 2, b.y + b.height / 2]; })()')

    def hover(self, selector):
        x, y = self.middle(selector)
        self.ask('Input.dispatchMouseEvent', type='mouseMoved', x=x, y=y)

    def tap(self, selector):
        x, y = self.middle(selector)
        self.ask('Input.dispatchTouchEvent', type='touchStart', touchPoints=[dict(x=x, y=y)])
        self.ask('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])

    @property
    def complaints(self):
        self.run('new Promise((done) => setTimeout(done, 50))')
        found = []
        for one in self.events:
            params = one.get('params', {})
            if one.get('method') == 'Runtime.exceptionThrown' or (
                    one.get('method') == 'Runtime.consoleAPICalled' and params['type'] in ('error', 'warning', 'assert')):
                found.append(params)
            if one.get('method') == 'Log.entryAdded' and params['entry']['level'] in ('error', 'warning'):
                found.append(params['entry'])
            if one.get('method') == 'Network.loadingFailed':
                found.append(params)
        return found

    @property
    def requests(self):
        """Addresses of all that was asked for, but for what lies within the page."""
        found = (one['params']['request']['url'] for one in self.events if one.get('method') == 'Network.requestWillBeSent')
        return [url for url in found if not url.startswith('data:')]

    def picture(self, path: Path, whole=False):
        data = self.ask('Page.captureScreenshot', format='png', captureBeyondViewport=whole, **(
            dict(clip=dict(self.ask('Page.getLayoutMetrics')['cssContentSize'], scale=1)) if whole else {}))['data']
        path.write_bytes(base64.b64decode(data))

    def close(self):
        try:
            self._session = None
            self.ask('Browser.close')
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._write)
            os.close(self._read)
            self.profile.cleanup()
