// Search from disk: browsers start no worker there, so its script runs in a hidden frame. The theme knows the name IFrameWorker.
if (location.protocol === 'file:') {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(address) {
      super();
      this.frame = document.createElement('iframe');
      this.frame.hidden = true;
      document.body.append(this.frame);
      this.inside = this.frame.contentWindow;
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent('message', {data}));
      this.inside.importScripts = (...others) => others.reduce((before, one) => before.then(() => this.load(one)), Promise.resolve());
      this.ready = this.load(new URL(address, location.href).href);
    }

    load(address) {
      return new Promise((done, fail) => {
        const script = this.inside.document.createElement('script');
        script.src = address;
        script.onload = done;
        script.onerror = fail;
        this.inside.document.body.append(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent('message', {data})));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
