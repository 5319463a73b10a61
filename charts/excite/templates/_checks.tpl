{{/*
What a schema cannot say, or not in words that help: rules over several values. All faults at once,
each with its field, value and remedy, as the programs themselves say them.
*/}}
{{- define "excite.faults" -}}
{{- $values := .Values -}}
{{- $faults := list -}}
{{- $name := "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}$" -}}

{{- /* Servers and Secrets. */ -}}
{{- range $section := list "broker" "progress" -}}
{{- if not (index $values $section).existingSecret -}}
{{- $faults = append $faults (printf "%s.existingSecret: it is empty; name the Secret that holds its URLs" $section) -}}
{{- end -}}
{{- end -}}
{{- if not (hasPrefix "s3://" $values.store.url) -}}
{{- $faults = append $faults (printf "store.url: it is `%s`; write `s3://bucket` or `s3://bucket/prefix`" $values.store.url) -}}
{{- end -}}
{{- if not (or $values.store.endpoint $values.store.region) -}}
{{- $faults = append $faults "store.region: it is empty, and so is store.endpoint; set the bucket's region" -}}
{{- end -}}
{{- range $section := list "broker" "store" "progress" -}}
{{- $ca := (index $values $section).ca -}}
{{- if and $ca.secret $ca.configMap -}}
{{- $faults = append $faults (printf "%s.ca: it names the Secret `%s` and the ConfigMap `%s`; name one of them" $section $ca.secret $ca.configMap) -}}
{{- end -}}
{{- end -}}
{{- if not $values.access.anyone -}}
{{- if not $values.access.tokens.existingSecret -}}
{{- $faults = append $faults "access.tokens.existingSecret: it is empty, so nobody could be told from nobody; name the Secret with the file that `excite token new` writes, or set access.anyone if something in front of the dispatcher asks who people are" -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (not $values.access.scaleToken.existingSecret) -}}
{{- $faults = append $faults "access.scaleToken.existingSecret: it is empty, and KEDA needs a token; name a Secret with a token of scope `read`" -}}
{{- end -}}
{{- range $model, $set := $values.models -}}
{{- if and (ne (default "store" $set.source) "store") (not $values.access.pushToken.existingSecret) -}}
{{- $faults = append $faults (printf "access.pushToken.existingSecret: it is empty, and models.%s.source is `%s`; name a Secret with a token of scope `admin`, or push the model by hand and set the source to `store`" $model $set.source) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $values.dispatcher.ingress.enabled (not $values.dispatcher.ingress.host) -}}
{{- $faults = append $faults "dispatcher.ingress.host: it is empty; set the name under which people reach the dispatcher" -}}
{{- end -}}

{{- /* Images. */ -}}
{{- if and (not $values.images.registry) (ne $values.images.pullPolicy "Never") -}}
{{- $faults = append $faults "images.registry: it is empty, so images would come from a public registry, where these names belong to others; set it to where your images are, such as `registry.example/team`, or images.pullPolicy to `Never` if nodes have them" -}}
{{- end -}}
{{- $tags := dict "images.worker.tag" $values.images.worker.tag "images.worker.gpuTag" $values.images.worker.gpuTag "images.dispatcher.tag" $values.images.dispatcher.tag "images.cli.tag" $values.images.cli.tag -}}
{{- range $pool, $set := $values.workers -}}
{{- $_ := set $tags (printf "workers.%s.image.tag" $pool) (default dict (default dict $set).image).tag -}}
{{- end -}}
{{- range $field, $tag := $tags -}}
{{- if eq (toString $tag) "latest" -}}
{{- $faults = append $faults (printf "%s: it is `latest`, which is something else tomorrow; name a version, or leave it empty for %s" $field $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* Models. */ -}}
{{- $classes := dict -}}
{{- $served := dict -}}
{{- range $pool, $_ := $values.workers -}}
{{- $_ := set $served (include "excite.pool" (dict "root" $ "name" $pool) | fromJson).class true -}}
{{- end -}}
{{- range $model, $set := $values.models -}}
{{- $class := default "default" $set.class -}}
{{- $source := default "store" $set.source -}}
{{- $_ := set $classes $class true -}}
{{- if not (regexMatch $name $model) -}}
{{- $faults = append $faults (printf "models: `%s` cannot name a model; use letters, digits, `.`, `_` and `-`" $model) -}}
{{- end -}}
{{- if and $values.workers (not (hasKey $served $class)) -}}
{{- $faults = append $faults (printf "models.%s.class: it is `%s`, and no pool has this class, so its jobs would wait for ever; use one of %s, or add a pool" $model $class (keys $served | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if and (eq $source "hub") (not $set.repository) -}}
{{- $faults = append $faults (printf "models.%s.repository: it is empty; name the hub's repository, such as `CompVis/stable-diffusion-v1-4`" $model) -}}
{{- end -}}
{{- if and (eq $source "hub") (eq $model "emoji") -}}
{{- $faults = append $faults "models.emoji.source: it is `hub`, but this is the bundled model's name; use another name, or the source `bundled`" -}}
{{- end -}}
{{- if and (eq $source "volume") (not $set.claim) -}}
{{- $faults = append $faults (printf "models.%s.claim: it is empty; name the PersistentVolumeClaim that has the model's folder" $model) -}}
{{- end -}}
{{- range $key, $for := dict "repository" "hub" "revision" "hub" "precision" "hub" "disk" "hub" "claim" "volume" "path" "volume" -}}
{{- if and (index $set $key) (ne $source $for) -}}
{{- $faults = append $faults (printf "models.%s.%s: it is `%s`, which is for the source `%s`, and the source is `%s`; change the source, or take it out" $model $key (index $set $key | toString) $for $source) -}}
{{- end -}}
{{- end -}}
{{- if and $set.digest (not (regexMatch "^[0-9a-f]{64}$" $set.digest)) -}}
{{- $faults = append $faults (printf "models.%s.digest: it is `%s`; write the 64 digits behind the `@` that `excite model check` prints" $model $set.digest) -}}
{{- end -}}
{{- end -}}
{{- if and $values.models (not (hasKey $values.models $values.dispatcher.config.default_model)) -}}
{{- $faults = append $faults (printf "dispatcher.config.default_model: it is `%s`, which is not in models; use one of %s, or add it" $values.dispatcher.config.default_model (keys $values.models | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if not $values.models -}}
{{- $faults = append $faults "models: it is empty; add the model that ships with Excite: `emoji: {class: default, source: bundled}`" -}}
{{- end -}}
{{- /* Not sprig's `default`, which takes 0 for absent. */ -}}
{{- $min := 16 -}}
{{- $max := 5000 -}}
{{- if hasKey $values.dispatcher.config "window_min" -}}{{- $min = int $values.dispatcher.config.window_min -}}{{- end -}}
{{- if hasKey $values.dispatcher.config "window_max" -}}{{- $max = int $values.dispatcher.config.window_max -}}{{- end -}}
{{- if or (lt $min 1) (gt $min $max) -}}
{{- $faults = append $faults (printf "dispatcher.config.window_min: it is %d; use 1 to window_max, which is %d" $min $max) -}}
{{- end -}}

{{- /* Pools. */ -}}
{{- if not $values.workers -}}
{{- $faults = append $faults "workers: it is empty; add a pool, such as `default: {class: default}`" -}}
{{- end -}}
{{- range $pool, $_ := $values.workers -}}
{{- $set := include "excite.pool" (dict "root" $ "name" $pool) | fromJson -}}
{{- $at := printf "workers.%s" $pool -}}
{{- if not (regexMatch "^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$" $pool) -}}
{{- $faults = append $faults (printf "workers: `%s` cannot name a pool; use 1 to 20 small letters, digits and `-`" $pool) -}}
{{- end -}}
{{- if not (regexMatch $name $set.class) -}}
{{- $faults = append $faults (printf "%s.class: `%s` cannot name a class; use letters, digits, `.`, `_` and `-`" $at $set.class) -}}
{{- else if and $values.models (not (hasKey $classes $set.class)) -}}
{{- $faults = append $faults (printf "%s.class: it is `%s`, and no model has this class, so the pool would have nothing to do; use one of %s, or add a model of this class to models (source `store` if it was pushed by hand)" $at $set.class (keys $classes | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if lt (int $set.min) 0 -}}
{{- $faults = append $faults (printf "%s.min: it is %d; use 0 or more" $at (int $set.min)) -}}
{{- end -}}
{{- if gt (int $set.min) (int $set.max) -}}
{{- $faults = append $faults (printf "%s.min: it is %d; use 0 to max, which is %d" $at (int $set.min) (int $set.max)) -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (lt (int $set.max) 1) -}}
{{- $faults = append $faults (printf "%s.max: it is %d, and KEDA wants 1 or more; use 1 or more, or take the pool out" $at (int $set.max)) -}}
{{- end -}}
{{- if lt (int $set.replicas) 0 -}}
{{- $faults = append $faults (printf "%s.replicas: it is %d; use 0 or more" $at (int $set.replicas)) -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $set.pricePerHour)) (lt (float64 $set.pricePerHour) 0.0) -}}
{{- $faults = append $faults (printf "%s.pricePerHour: it is %v; use 0 or more, or leave it out" $at $set.pricePerHour) -}}
{{- end -}}
{{- if lt (float64 $set.drainSeconds) 1.0 -}}
{{- $faults = append $faults (printf "%s.drainSeconds: it is %v; use 1 or more" $at $set.drainSeconds) -}}
{{- end -}}
{{- if lt (float64 $set.startSeconds) 0.0 -}}
{{- $faults = append $faults (printf "%s.startSeconds: it is %v; use 0 or more" $at $set.startSeconds) -}}
{{- end -}}
{{- if and $set.gpu (not (contains "/" $set.gpu)) -}}
{{- $faults = append $faults (printf "%s.gpu: `%s` is no resource; write it as nodes offer it, such as `nvidia.com/gpu` or `nvidia.com/mig-1g.10gb`" $at $set.gpu) -}}
{{- end -}}
{{- if and (not $set.gpu) $set.config.precision (ne (default "f32" $set.config.precision) "f32") -}}
{{- $faults = append $faults (printf "%s.config.precision: it is `%s`, but the pool has no gpu, and a CPU takes f32 only; leave it out, or set gpu" $at $set.config.precision) -}}
{{- end -}}
{{- if not (and $set.resources $set.resources.limits $set.resources.limits.memory) -}}
{{- $faults = append $faults (printf "%s.resources.limits.memory: it is not set, and a worker takes what it finds; set it, such as `8Gi`" $at) -}}
{{- end -}}
{{- $slots := 4 -}}
{{- if hasKey $set.config "slots" -}}{{- $slots = int $set.config.slots -}}{{- end -}}
{{- if or (lt $slots 1) (gt $slots 256) -}}
{{- $faults = append $faults (printf "%s.config.slots: it is %d; set it to 1 to 256" $at $slots) -}}
{{- end -}}
{{- $size := $set.config.batch_size -}}
{{- if and (kindIs "float64" $size) (or (lt (int $size) 1) (gt (int $size) $slots)) -}}
{{- $faults = append $faults (printf "%s.config.batch_size: it is %d; use `auto`, or 1 to slots, which is %d" $at (int $size) $slots) -}}
{{- end -}}
{{- $drain := 15 -}}
{{- if hasKey $set.config "drain_seconds" -}}{{- $drain = int $set.config.drain_seconds -}}{{- end -}}
{{- if lt (int $set.terminationGracePeriodSeconds) (add $drain 10 | int) -}}
{{- $faults = append $faults (printf "%s.terminationGracePeriodSeconds: it is %d, too little for config.drain_seconds, which is %d; use %d or more" $at (int $set.terminationGracePeriodSeconds) $drain (add $drain 10 | int)) -}}
{{- end -}}
{{- end -}}

{{- /* What the cluster must know. */ -}}
{{- if and $values.autoscaling.enabled (not (.Capabilities.APIVersions.Has "keda.sh/v1alpha1")) -}}
{{- $faults = append $faults "autoscaling.enabled: it is true, but the cluster has no KEDA (keda.sh/v1alpha1); install KEDA 2.17 or later first, or set it to false (`helm template` needs `--api-versions keda.sh/v1alpha1`)" -}}
{{- end -}}
{{- range $key := list "podMonitor" "rules" -}}
{{- if and (index $values.monitoring $key).enabled (not ($.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- $faults = append $faults (printf "monitoring.%s.enabled: it is true, but the cluster has no Prometheus operator (monitoring.coreos.com/v1); install it first, or set it to false (`helm template` needs `--api-versions monitoring.coreos.com/v1`)" $key) -}}
{{- end -}}
{{- end -}}

{{- if and $values.monitoring.rules.enabled (not (.Files.Get "files/rules.yaml")) -}}
{{- $faults = append $faults "monitoring.rules.enabled: it is true, but this chart has no files/rules.yaml; take a released chart, or set it to false" -}}
{{- end -}}

{{- $faults | uniq | toJson -}}
{{- end -}}
